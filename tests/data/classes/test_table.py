"""Classes of clips: of EPIC-KITCHENS-100's csv, of one's own files, of the embedded corpus."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest

from mama_ray.data.classes.table import classes_of_embedded, read_classes
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.synthetic.vocabulary import MOTIONS, SHAPES
from mama_ray.errors import UserError

EPIC = Path(__file__).resolve().parents[3] / "../shared/data/annotations/epic100"
EPIC_ROWS = [
    ("P01_01_0", "take", 0, "plate", 10, "['plate', 'cup']", "[10, 2]"),
    ("P01_01_1", "put", 1, "cup", 2, "['cup']", "[2]"),
    ("P01_01_2", "take", 0, "plate", 10, "['plate']", "[10]"),
]
EPIC_NAMES = ("narration_id", "verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes")


def write_csv(path: Path, names, rows) -> str:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([names, *rows])
    return str(path)


def test_epic_rows_have_verbs_nouns_and_actions_in_the_order_of_their_names(tmp_path):
    found = read_classes([write_csv(tmp_path / "train.csv", EPIC_NAMES, EPIC_ROWS)])
    assert found.sets["P01_01_0"] == {"verb": (0,), "noun": (10, 2), "action": (0,)}
    assert found.sizes == {"verb": 2, "noun": 11, "action": 2}
    assert found.actions == ("0:10", "1:2")


def test_actions_are_sorted_as_texts(tmp_path):
    rows = [("a", "", 2, "", 0, "", "[0]"), ("b", "", 10, "", 1, "", "[1]")]
    assert read_classes([write_csv(tmp_path / "x.csv", EPIC_NAMES, rows)]).actions == ("10:1", "2:0")


@pytest.mark.skipif(not EPIC.is_dir(), reason="../shared/data is not there")
def test_the_official_validation_file_has_its_published_counts():
    found = read_classes([str(EPIC / "EPIC_100_retrieval_test.csv")])
    assert len(found.sets) == 9668 and len(found.actions) == 1352
    assert len({sets["verb"] for sets in found.sets.values()}) == 78
    assert len({sets["noun"][0] for sets in found.sets.values()}) == 211


def test_files_of_ones_own_are_csv_or_json(tmp_path):
    of_csv = write_csv(tmp_path / "x.csv", ("clip_id", "action"), [("a", 3), ("b", 0)])
    (tmp_path / "y.json").write_text(json.dumps({"c": {"action": 5}}))
    found = read_classes([of_csv, str(tmp_path / "y.json")])
    assert found.sets == {"a": {"action": (3,)}, "b": {"action": (0,)}, "c": {"action": (5,)}}
    assert found.sizes == {"action": 6} and found.actions == ()


EGTEA_LINES = ("P21-R04-Soup-291175-294945-F006979-F007088 1 1 1", "OP01-R01-Pizza-5-9-F000001-F000020 106 4 9")


@pytest.mark.parametrize("name", ["train_split1.txt", "copy.csv"])
def test_lists_of_egtea_have_actions_from_0(tmp_path, name):
    lines = [f'"{line}"' if name.endswith("csv") else f"{line}  " for line in EGTEA_LINES]
    (tmp_path / name).write_text("\n".join(lines) + "\n\n")
    found = read_classes([str(tmp_path / name)])
    ids = [line.split()[0] for line in EGTEA_LINES]
    assert found.sets == {ids[0]: {"action": (0,)}, ids[1]: {"action": (105,)}}
    assert found.sizes == {"action": 106} and found.actions == ()


@pytest.mark.parametrize("line", ["P21-R04-Soup-1-2-F1-F2 0 1 1", "P21-R04-Soup-1-2-F1-F2", "something else"])
def test_a_line_that_is_not_of_egteas_list_is_named(tmp_path, line):
    (tmp_path / "train_split1.txt").write_text(f"{EGTEA_LINES[0]}\n{line}\n")
    with pytest.raises(UserError, match=f"train_split1.txt: line 2: {line}, wanted clip_id action verb noun"):
        read_classes([str(tmp_path / "train_split1.txt")])


EGTEA = EPIC.parent / "egtea"


@pytest.mark.skipif(not EGTEA.is_dir(), reason="../shared/data is not there")
def test_copies_of_the_official_split_have_its_published_counts():
    found = read_classes([str(EGTEA / f"glc_{split}_split1.csv") for split in ("train", "test")])
    assert (len(found.sets), found.sizes) == (8299 + 2022, {"action": 106})


def test_the_embedded_corpus_has_motions_and_shapes():
    clips = [describe_clip(CorpusConfig(), "train", number) for number in range(40)]
    found = classes_of_embedded([clip.clip_id for clip in clips], [json.dumps(clip.truth) for clip in clips])
    for clip in clips:
        (thing, *_) = clip.truth["facts"]["objects"]
        sets = found.sets[clip.clip_id]
        assert (MOTIONS[sets["verb"][0]], SHAPES[sets["noun"][0]]) == (thing["motion"], thing["shape"])
        assert found.actions[sets["action"][0]] == f"{sets['verb'][0]}:{sets['noun'][0]}"
    with pytest.raises(UserError, match="clip x.*wanted data.classes"):
        classes_of_embedded(["x"], [None])


def test_a_clip_without_classes_is_named(tmp_path):
    found = read_classes([write_csv(tmp_path / "x.csv", ("clip_id", "verb"), [("a", 1)])])
    with pytest.raises(UserError, match="1 of 2, among them b"):
        found.add_to(pa.table({"clip_id": ["a", "b"]}), "x.csv")


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (("name", "verb"), [("a", 1)], "wanted a column clip_id or narration_id"),
        (("clip_id", "verb"), [("a", "cut")], "a class is no number.*row 1: 'cut'"),
        (("clip_id", "verb"), [("a", -1)], "a class is no number"),
        (("clip_id", "colour"), [("a", 1)], "no classes of a clip.*wanted one of verb, noun, action"),
        (("clip_id", "verb"), [("a", 1), ("a", 2)], "two sets of classes.*a in"),
        (("clip_id", "verb"), [("a", 10**6)], "classes of kind verb.*wanted below"),
        (("clip_id", "verb"), [], "no classes of clips"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, names, rows, message):
    with pytest.raises(UserError, match=message) as caught:
        read_classes([write_csv(tmp_path / "x.csv", names, rows)])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        read_classes([str(tmp_path / "nowhere.csv")])
