"""From LaViLa's pickles to one table of annotations: counted, with a reason for every record that is left out."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mama_ray.data.annotations import parse_annotation, read_annotations
from mama_ray.data.narrations.__main__ import convert, main
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

HUMAN = [
    ("uid", 0.5, 1.5, "#C C opens a drawer"),
    ("uid", 2.0, 3.0, "#C C closes it"),
    ("vid", -0.5, 0.5, "#C C looks"),
]
GENERATED = [("uid", 0.5, 1.5, ["#C C pulls", "#C C takes"], [1.5, 20.0]), ("vid", 7.0, 8.0, "#C C walks", 2.0)]
REPHRASED = [("uid", 2.0, 3.0, ["#C C shuts it", "#C C pushes it"])]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, records in (("h.pkl", HUMAN), ("h.narrator.pkl", GENERATED), ("h.rephraser.no_punkt.pkl", REPHRASED)):
        (tmp_path / name).write_bytes(pickle.dumps(records))
    return tmp_path


def rows_of(folder) -> list[dict]:
    rows = [row for _, row in read_annotations(Place.of(folder / "out.jsonl"))]
    assert all(parse_annotation(row).captions for row in rows)
    return rows


def texts_of(row) -> list[tuple[str, str]]:
    return [(one["text"], one["source"]) for one in row["captions"]]


def test_several_pickles_become_one_table_with_the_source_of_every_text(folder):
    files = [folder / name for name in ("h.pkl", "h.narrator.pkl", "h.rephraser.no_punkt.pkl")]
    told = convert(files, str(folder / "out.jsonl"), split="train")
    assert told == (
        "6 rows with 3 human texts, 3 generated texts, 2 rephrased texts, 1 with a start below 0, taken as 0"
    )
    rows = rows_of(folder)
    assert [texts_of(row) for row in rows] == [
        [("#C C opens a drawer", "human")],
        [("#C C closes it", "human")],
        [("#C C looks", "human")],
        [("#C C pulls", "generated"), ("#C C takes", "generated")],
        [("#C C walks", "generated")],
        [("#C C shuts it", "rephrased"), ("#C C pushes it", "rephrased")],
    ]
    assert {row["split"] for row in rows} == {"train"} and rows[2]["start_s"] == 0.0
    assert not (folder / "out.jsonl.refused.jsonl").exists()


def test_the_source_can_be_said_and_texts_be_left_out_for_their_score(folder):
    told = convert(
        [folder / "h.pkl", folder / "h.narrator.pkl"], f"{folder}/out.jsonl", source="rephrased", max_score=5
    )
    assert "3 rephrased texts, 2 generated texts" in told and told.endswith("1 texts left out for their score")


def test_a_limit_for_scores_that_no_record_has_is_refused(folder):
    with pytest.raises(UserError, match=r"--max-score has no meaning for records without scores: got 5 for h\.pkl"):
        convert([folder / "h.pkl"], f"{folder}/out.jsonl", max_score=5)
    assert not list(folder.glob("out*"))


def test_every_record_that_is_no_narration_is_counted_with_its_reason(folder):
    bad = [
        HUMAN[0],
        ("uid", float("nan"), 1, "a"),
        ("uid", 2, 1, "a"),
        ("uid", 0, 1, ""),
        (1,),
        ("uid", 0, 1, "a\ud800"),
    ]
    (folder / "bad.pkl").write_bytes(pickle.dumps(bad))
    told = convert([folder / "bad.pkl"], f"{folder}/out.jsonl")
    assert told.startswith(
        "1 rows with 1 human texts, 5 records refused (2 text: got nothing, wanted a narration; 1 start: got nan,"
    )
    refused = [json.loads(line) for line in (folder / "out.jsonl.refused.jsonl").read_text().splitlines()]
    assert [row["record"] for row in refused] == [2, 3, 4, 5, 6]
    assert refused[4] == {"file": "bad.pkl", "record": 6, "reason": "text: got a lone surrogate, wanted Unicode text"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps([("uid", 0.0, 1.0, open)]), "holds more than plain data: got .*bad.pkl.*open"),
        (pickle.dumps(HUMAN)[:-20], "not a whole pickle"),
        (pickle.dumps([1, 2]), "no record is a narration: got bad.pkl: .*2 records refused"),
        (pickle.dumps([]), "no record is a narration: got empty lists"),
        (pickle.dumps([("uid", 0, 1, ["a" * 9000] * 900)] * 20), "the same texts over and over"),
    ],
    ids=["object", "cut off", "no records", "nothing", "repetition"],
)
def test_a_file_that_cannot_be_used_leaves_no_table(folder, content, reason):
    (folder / "bad.pkl").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        convert(
            [folder / "h.pkl", folder / "bad.pkl"] if b"open" in content else [folder / "bad.pkl"],
            f"{folder}/out.jsonl",
        )
    assert not list(folder.glob("out*"))


@pytest.mark.parametrize("amount", [float("nan"), -1.0, 0.0, float("inf"), 1e300])
def test_what_is_no_amount_of_memory_is_refused(folder, amount):
    with pytest.raises(UserError, match="--max-memory-gib: got .*wanted more than 0"):
        main((folder / "h.pkl",), f"{folder}/out.jsonl", max_memory_gib=amount)
    assert not list(folder.glob("out*"))


def test_the_program_ends_with_one_line(folder):
    def run(*arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "mama_ray.data.narrations", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])

    done = run(folder / "h.pkl", "--output", folder / "out.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (f"3 rows with 3 human texts, 1 with a start below 0, taken as 0: {folder}/out.jsonl\n")
    (folder / "bomb.pkl").write_bytes((b"]\x94" + b"(" + b"h\x00" * 50_000 + b"t\x94" + b"0") * 100 + b".")
    failed = run(folder / "bomb.pkl", "--output", folder / "other.jsonl", "--max-memory-gib", "1")
    assert failed.returncode == 1 and len(failed.stderr.splitlines()) == 1, failed.stderr
    assert failed.stderr.startswith("error: ")
