"""Annotation tables: three formats give the same rows; table faults are errors, row faults are reasons."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.annotations import annotation_from_json, parse_annotation, read_annotations
from mama_ray.data.clip import Caption
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

ROWS = [
    {"video": "a/b.mp4", "start_s": 1.5, "end_s": 3.0, "captions": ["one", "two"], "split": "val"},
    {"video": "c.webm", "start_s": None, "end_s": None, "captions": [{"text": "x", "source": "asr"}], "split": None},
]


def write(tmp_path, name: str) -> str:
    path = tmp_path / name
    if name.endswith(".csv"):
        path.write_text(
            'video,start_s,end_s,captions,split\na/b.mp4,1.5,3.0,"[""one"", ""two""]",val\n'
            'c.webm,,,"[{""text"": ""x"", ""source"": ""asr""}]",\n'
        )
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    else:
        rows = [{**row, "captions": json.dumps(row["captions"])} for row in ROWS]
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def parse(**row):
    return parse_annotation({"video": "v.mp4", **row})


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.CSV"])
def test_every_format_gives_the_same_annotations(tmp_path, name):
    path = write(tmp_path, name.lower())
    if name != name.lower():
        (tmp_path / name.lower()).rename(tmp_path / name)
        path = str(tmp_path / name)
    first, second = [parse_annotation(row, default_split="train") for _, row in read_annotations(Place.of(path))]
    assert (first.video, first.video_id, first.start_s, first.end_s, first.split) == ("a/b.mp4", "a/b", 1.5, 3.0, "val")
    assert first.captions == (Caption("one"), Caption("two"))
    assert (second.clip_id, second.start_s, second.end_s, second.split) == ("c", 0.0, None, "train")
    assert second.captions == (Caption("x", "asr"),)


def test_an_annotation_survives_its_line():
    annotation = parse(captions=["é"], questions=[{"q": "?"}], truth={"kind": "wrong"}, topic="cooking")
    assert annotation_from_json(annotation.to_json()) == annotation


def test_lists_of_structs_from_parquet_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"video": "v.mp4", "captions": [{"text": "a", "source": "asr"}]}]), path)
    ((number, row),) = read_annotations(Place.of(path))
    assert number == 1
    assert parse_annotation(row).captions == (Caption("a", "asr"),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"video": ""}, "video: got nothing"),
        ({"video": "../v.mp4"}, "inside the folder"),
        ({"video": "/etc/v.mp4"}, "inside the folder"),
        ({"video": "notes.txt"}, "extension 'txt'"),
        ({"video": ["a"]}, "wanted a text"),
        ({"start_s": 2, "end_s": 1}, "end_s: got 1.0, wanted more than start_s"),
        ({"start_s": 2, "end_s": 2}, "end_s: got 2.0"),
        ({"start_s": -1}, "start_s: got -1.0"),
        ({"start_s": "soon"}, "start_s: got 'soon', wanted a number"),
        ({"start_s": True}, "start_s: got True"),
        ({"end_s": "inf"}, "end_s: got inf"),
        ({"clip_id": "a b"}, "clip_id: got 'a b'"),
        ({"split": "dev"}, "split: got 'dev'"),
        ({"caption": "a", "captions": ["b"]}, "both caption and captions"),
        ({"captions": "not json"}, "captions: got 'not json', wanted a JSON list"),
        ({"captions": [" "]}, "caption: got ' '"),
        ({"captions": [3]}, "caption: got 3"),
        ({"captions": [{"source": "asr"}]}, "caption: got None"),
        ({"caption": "a", "source": "robot"}, "caption source: got 'robot'"),
        ({"questions": ["what"]}, "questions: wanted a list of objects"),
        ({"truth": "[1]"}, "truth: got"),
        ({"error": "row: not JSON"}, "row: not JSON"),
    ],
)
def test_a_bad_row_has_a_reason(row, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(**row)


def test_empty_cells_count_as_absent():
    annotation = parse(start_s="", end_s=float("nan"), caption="  ", topic=None, clip_id="")
    assert (annotation.start_s, annotation.end_s, annotation.captions, annotation.topic) == (0.0, None, (), None)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_missing_file_is_named(tmp_path, suffix):
    with pytest.raises(UserError, match="no such annotation file"):
        list(read_annotations(Place.of(tmp_path / f"none.{suffix}")))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"video,caption\n", "no rows"),
        ("a.jsonl", b"\n\n", "no rows"),
        ("a.csv", b"caption\nhello\n", "lack a column"),
        ("a.csv", b"video,video\na,b\n", "a column twice"),
        ("a.csv", b"video,capton\na.mp4,x\n", "capton (meant caption?)"),
        ("a.jsonl", b'{"video": "a.mp4", "stat_s": 1}\n', "stat_s (meant start_s?)"),
        ("a.jsonl", b'{"caption": "x"}\n', "lack a column"),
        ("a.csv", b'video\n"open quote\n', "cannot be read"),
        ("a.csv", b"video\n\xff\xfe\xfd.mp4\n", "cannot be read"),
        ("a.parquet", b"PAR1nonsense", "cannot be read"),
        ("a.parquet", b"", "cannot be read"),
        ("a.xlsx", b"x", "unknown format"),
    ],
)
def test_a_faulty_table_is_one_clear_error(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        list(read_annotations(Place.of(tmp_path / name)))
    assert text in str(raised.value)
    assert name in str(raised.value)


def test_unknown_columns_can_be_ignored(tmp_path):
    (tmp_path / "a.csv").write_text("video,licence\na.mp4,MIT\n")
    ((_, row),) = read_annotations(Place.of(tmp_path / "a.csv"), unknown_columns="ignore")
    assert parse_annotation(row).video == "a.mp4"


def test_broken_rows_do_not_hide_the_good_ones(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"video": "a.mp4"}\n{broken\n[1]\n{"video": "b.mp4"}\n')
    rows = list(read_annotations(Place.of(tmp_path / "a.jsonl")))
    assert [number for number, _ in rows] == [1, 2, 3, 4]
    assert ["error" in row for _, row in rows] == [False, True, True, False]
    (tmp_path / "a.csv").write_text("video,caption\na.mp4,x\nb.mp4\nc.mp4,y\n")
    assert ["error" in row for _, row in read_annotations(Place.of(tmp_path / "a.csv"))] == [False, True, False]


def test_a_byte_order_mark_and_quoted_line_ends_are_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfvideo,caption\r\na.mp4,"two\nlines"\r\n')
    ((_, row),) = read_annotations(Place.of(tmp_path / "a.csv"))
    assert parse_annotation(row).captions == (Caption("two\nlines"),)
