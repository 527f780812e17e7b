"""Narrations of egocentric videos end in shards: their texts, sources, videos and times, under names that stay."""

import json
import pickle

import pytest

from mama_ray.data.clip import clip_from_json
from mama_ray.data.narrations.__main__ import convert
from mama_ray.data.shard import scan_shard
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.plan import look_at_annotations
from mama_ray.storage.places import Place
from tests.data.narrations.test_egoclip import HEADER, line
from tests.data.video.chunk_factory import make_chunks
from tests.orchestration.prepare.in_process import index_rows, options, prepare, reasons

HUMAN = [("uid", 1.5, 2.5, "#C C opens a drawer"), ("uid", -0.5, 0.5, "#C C looks around")]
GENERATED = [("uid", 1.5, 2.5, ["#C C pulls", "#C C takes"], [1.5, 2.0]), ("uid", 4.0, 5.0, "#C C walks", 2.0)]
REPHRASED = [("uid", 1.5, 2.5, ["#C C opens the drawer"])]


@pytest.fixture
def folder(tmp_path):
    make_chunks(tmp_path / "videos/uid.mp4")
    return tmp_path


def test_pickles_end_in_shards_with_the_source_of_every_text(folder):
    for name, records in (("a.pkl", HUMAN), ("b.pkl", GENERATED), ("c.rephraser.pkl", REPHRASED)):
        (folder / name).write_bytes(pickle.dumps(records))
    convert([folder / name for name in ("a.pkl", "b.pkl", "c.rephraser.pkl")], f"{folder}/t.jsonl")
    assert prepare(**options(folder, annotations=f"{folder}/t.jsonl")).startswith("3 clips in 2 shards: index")
    rows = index_rows(folder)
    texts = {
        (row["video_id"], row["start_s"], row["end_s"]): [(one["text"], one["source"]) for one in row["captions"]]
        for row in rows
    }
    assert texts == {
        ("uid", 1.5, 2.5): [
            ("#C C opens a drawer", "human"),
            ("#C C pulls", "generated"),
            ("#C C takes", "generated"),
            ("#C C opens the drawer", "rephrased"),
        ],
        ("uid", 0.0, 0.5): [("#C C looks around", "human")],
        ("uid", 4.0, 5.0): [("#C C walks", "generated")],
    }
    with Place.of(folder / "out" / rows[0]["shard"]).open_stream() as stream:
        clips = [clip_from_json(sample.texts["json"]) for sample in scan_shard(stream)]
    assert [(one.text, one.source) for one in clips[0].captions] == texts["uid", 1.5, 2.5]
    again = options(folder, annotations=f"{folder}/t.jsonl", output=f"{folder}/again", clips_per_shard=1)
    prepare(**again)
    names = [row["clip_id"] for row in rows]
    assert len(set(names)) == 3
    assert {*names} == {json.loads(text)["clip_id"] for text in texts_of_shards(folder / "again")}


def texts_of_shards(output) -> list[bytes]:
    found = []
    for shard in sorted(output.glob("*.tar")):
        with Place.of(shard).open_stream() as stream:
            found += [sample.texts["json"] for sample in scan_shard(stream)]
    return found


def test_egoclip_is_read_by_its_name_and_all_that_is_odd_is_counted(folder):
    lines = [
        line("uid", 1.5, 2.5, "#C C opens a drawer"),
        line("uid", 1.5, 2.5, "#C C pulls a handle"),
        line("uid", -0.5, 0.5, "#C C looks around"),
        line("uid", 7.0, 9.0, "#C C sits"),
        line("uid", 9.0, 10.0),
        line("uid", "nan", 1.0),
        line("uid", 2.0, 1.0),
        line("uid", 3.0, 4.0, " "),
        line("other", 1.0, 2.0),
    ]
    given = options(folder, "\n".join([HEADER, *lines]), name="egoclip.csv", annotations_format="egoclip")
    told = prepare(**given)
    said = "1 cut short by the end of their video, 1 with a start below 0, taken as 0, 5 quarantined ("
    assert told.startswith(f"3 clips in 2 shards, {said}")
    rows = {(row["start_s"], row["end_s"]): [one["text"] for one in row["captions"]] for row in index_rows(folder)}
    assert rows == {
        (1.5, 2.5): ["#C C opens a drawer", "#C C pulls a handle"],
        (0.0, 0.5): ["#C C looks around"],
        (7.0, 8.0): ["#C C sits"],
    }
    found = " | ".join(reasons(folder / "out"))
    for reason in (
        "start: got nan",
        "times: got an end of 1 s",
        "text: got nothing",
        "starts after the end",
        "no such",
    ):
        assert reason in found
    assert json.loads((folder / "out/prepare.json").read_text())["clamped"] == {"start": 1, "end": 1}


def test_another_table_under_this_name_is_told_before_anything_starts(folder):
    given = options(folder, "clip,text\nuid.mp4,a walk\n", annotations_format="egoclip")
    with pytest.raises(UserError, match="no file of EgoClip"):
        look_at_annotations(PrepareJob(**given))


def test_egoclip_that_is_taken_for_a_table_is_told_with_the_remedy(folder):
    given = options(folder, "\n".join([HEADER, line()]), name="egoclip.csv")
    with pytest.raises(UserError, match="the annotations are EgoClip's.*add --annotations_format egoclip"):
        look_at_annotations(PrepareJob(**given))
