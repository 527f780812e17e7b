"""Annotation tables: three formats give the same rows; table faults are errors, row faults are reasons."""

import datetime
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.annotations import annotation_from_json, look_at_table, parse_annotation, read_annotations
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
        ({"start_s": "1_000"}, "start_s: got '1_000', wanted a number"),
        ({"start_s": True}, "start_s: got True"),
        ({"end_s": "inf"}, "end_s: got inf"),
        ({"clip_id": "a b"}, "clip_id: got 'a b'"),
        ({"split": "holdout"}, "split: got 'holdout'"),
        ({"split": 3}, "split: got '3'"),
        ({"video": "x" * 300 + ".mp4"}, "video: got a name of 304 bytes"),
        ({"video": "é" * 150 + "/a.mp4"}, "video: got a name of 300 bytes"),
        ({"video": "folder/" * 200 + "a.mp4"}, "video: got a path of 1405 bytes"),
        ({"video": "\ud800.mp4"}, "video: got a lone surrogate"),
        ({"topic": "half \ud83d"}, "topic: got a lone surrogate"),
        ({"caption": "half \ud83d"}, "caption: got a lone surrogate"),
        ({"questions": [{"q": "\ud83d"}]}, "questions: got a lone surrogate"),
        ({"start_s": 10**400}, "start_s: got 1000"),
        ({"start_s": [1]}, "start_s: got [1], wanted a number"),
        ({"end_s": {"s": 1}}, "end_s: got {'s': 1}, wanted a number"),
        ({"end_s": datetime.date(2020, 1, 1)}, "end_s: got datetime.date(2020, 1, 1)"),
        ({"video_id": b"a"}, "video_id: got b'a', wanted a text"),
        ({"topic": datetime.datetime(2020, 1, 1)}, "topic: got datetime"),
        ({"caption": b"bytes"}, "caption: got b'bytes'"),
        ({"captions": [b"bytes"]}, "captions: got what JSON cannot hold"),
        ({"captions": {"text": "a"}}, "captions: got {'text': 'a'}, wanted a JSON list"),
        ({"captions": "['a dog']"}, "captions: got a list in the syntax of Python"),
        ({"questions": [{"when": datetime.date(2020, 1, 1)}]}, "questions: got what JSON cannot hold"),
        ({"truth": {"raw": b"x"}}, "truth: got what JSON cannot hold"),
        ({"truth": [1]}, "truth: got [1], wanted a JSON object"),
        ({"caption": "a", "captions": ["b"]}, "both caption and captions"),
        ({"captions": "not json"}, "captions: got 'not json', wanted a JSON list"),
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
        ("a.csv", b"\xef\xbb\xbf", "no rows"),
        ("a.tsv", b"\xef\xbb\xbf", "no rows"),
        ("a.csv", b"video,caption\n", "no rows"),
        ("a.jsonl", b"\n\n", "no rows"),
        ("a.csv", b"caption\nhello\n", "lack a column"),
        ("a.csv", b"video,video\na,b\n", "a column twice"),
        ("a.csv", b"video,capton\na.mp4,x\n", "capton (meant caption?)"),
        ("a.jsonl", b'{"video": "a.mp4", "stat_s": 1}\n', "stat_s (meant start_s?)"),
        ("a.jsonl", b'{"caption": "x"}\n', "lack a column"),
        ("a.csv", b'video\n"open quote\n', "cannot be read"),
        ("a.parquet", b"PAR1nonsense", "cannot be read"),
        ("a.parquet", b"", "cannot be read"),
        ("a.csv", b"video;caption;start_s\na.mp4;a dog;0,5\n", "separated by semicolons"),
        ("a.csv", b'\xef\xbb\xbf"video";"caption"\r\n"a.mp4";"a dog, or two"\r\n', "separated by semicolons"),
        ("a.csv", b"video|caption\na.mp4|a dog\n", "separated by vertical bars"),
        ("a.csv", b"video\tcaption\na.mp4\ta dog\n", "separated by tabs"),
        ("a.csv", b"video\tcaption\na.mp4\ta dog\n", "name it a.tsv"),
        ("a.tsv", b"video,caption\na.mp4,a dog\n", "separated by commas"),
        ("a.csv", b"video,caption\na.mp4,a caf\xe9\n", "row 1 (line 2): 'a café' if it is Windows-1252"),
        ("a.csv", b'video,caption\na.mp4,"two\nlines"\nb.mp4,x\nc.mp4,na\xefve\n', "row 3 (line 5): 'naïve'"),
        ("a.csv", b"video\n\xff\xfe\xfd.mp4\n", "not encoded in UTF-8"),
        ("a.csv", "vidéo,caption\n".encode("cp1252"), "the header"),
        ("a.csv", "video,caption\na.mp4,x\n".encode("utf-16"), "text in UTF-16"),
        ("a.jsonl", '{"video": "a.mp4"}\n'.encode("utf-16"), "text in UTF-16"),
        ("a.jsonl", b'[{"video": "a.mp4"},\n{"video": "b.mp4"}]\n', "one JSON array"),
        ("a.csv", b"PK\x03\x04rest of a workbook", "a workbook of Excel"),
        ("a.csv", b"\x1f\x8brest", "compressed by gzip"),
        ("a.csv", b"video,captions\na.mp4,\"['a dog', 'a cat']\"\n", "captions are lists in the syntax of Python"),
        ("a.csv", b'video,captions\na.mp4,"[""x""]"\nb.mp4,"[\'it\'\'s\']"\n', "row 2: ['it''s']"),
        ("a.xlsx", b"x", "unknown format"),
    ],
)
def test_a_faulty_table_is_one_clear_error(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        look_at_table(Place.of(tmp_path / name))
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


def test_a_quote_in_the_wrong_place_is_a_reason_of_its_row(tmp_path):
    text = 'video,caption\na.mp4,x\nb.mp4,"half" quoted\nc.mp4,' + "y" * 200_000 + '\nd.mp4,5" disk\n'
    (tmp_path / "a.csv").write_text(text)
    rows = [row for _, row in read_annotations(Place.of(tmp_path / "a.csv"))]
    assert ["error" in row for row in rows] == [False, True, False, False]
    assert "(line 3)" in rows[1]["error"]
    assert len(rows[2]["caption"]) == 200_000


def test_a_byte_order_mark_and_quoted_line_ends_are_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfvideo,caption\r\na.mp4,"two\nlines"\r\n')
    ((_, row),) = read_annotations(Place.of(tmp_path / "a.csv"))
    assert parse_annotation(row).captions == (Caption("two\nlines"),)


def rows_of(path) -> list[dict]:
    return [row for _, row in read_annotations(Place.of(path))]


@pytest.mark.parametrize(
    "nothing", ["nan", "NaN", "None", "NULL", "null", "N/A", "n/a", "<NA>", "\u200b", " ", "", None, float("nan")]
)
def test_what_says_nothing_is_no_caption_time_or_split(nothing):
    annotation = parse(caption=nothing, start_s=nothing, end_s=nothing, split=nothing)
    assert (annotation.captions, annotation.start_s, annotation.end_s, annotation.split) == ((), 0.0, None, None)
    assert parse(captions=["a dog", nothing, {"text": nothing}]).captions == (Caption("a dog"),)


def test_words_that_only_begin_like_nothing_are_captions():
    assert [parse(caption=text).captions[0].text for text in ("None of them moves", "nana", "-")]
    assert parse(topic="None", video_id="NA").topic == "None"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"),
        ("validation", "val"),
        ("testing", "test"),
        ("dev", "val"),
        (" val", "val"),
        ("META ", "meta"),
    ],
)
def test_usual_names_of_splits_are_taken(name, split):
    assert parse(split=name).split == split


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ",video,caption\n0,a.mp4,a dog\n"),
        ("a.csv", "Unnamed: 0,video,caption\n0,a.mp4,a dog\n"),
        ("a.csv", "video,caption,,\na.mp4,a dog,,\n"),
        ("a.tsv", "video\tcaption\na.mp4\ta dog\n"),
        ("a.tsv", "\ufeffvideo\tcaption\r\na.mp4\ta dog\r\n"),
        ("a.csv", "video,caption\ra.mp4,a dog\r"),
    ],
)
def test_what_spreadsheets_and_data_frames_write_is_read_where_it_is_safe(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    look_at_table(Place.of(tmp_path / name))
    (row,) = rows_of(tmp_path / name)
    assert parse_annotation(row).captions == (Caption("a dog"),)


def test_the_index_of_a_data_frame_in_parquet_is_no_column(tmp_path):
    rows = [{"video": "a.mp4", "__index_level_0__": 7}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [{"video": "a.mp4"}]


def test_a_value_in_a_column_without_a_name_is_not_lost_without_a_word(tmp_path):
    (tmp_path / "a.csv").write_text("video,\na.mp4,precious\nb.mp4,\n")
    bad, good = rows_of(tmp_path / "a.csv")
    assert "'precious' in a column without a name" in bad["error"]
    assert good == {"video": "b.mp4"}


def test_a_json_line_without_a_video_does_not_hide_the_others(tmp_path):
    lines = ['{"vid": "b.mp4", "caption": "y"}', '{"video": "a.mp4", "caption": "x"}', '{"caption": "no video"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    first, second, third = rows_of(tmp_path / "a.jsonl")
    assert "video: got a row without it (vid for video?)" in first["error"]
    assert second["caption"] == "x"
    assert "video: got a row without it" in third["error"]


def test_numbers_and_texts_that_json_cannot_keep_are_reasons_of_their_row(tmp_path):
    lines = [b'{"video": "a.mp4", "start_s": ' + b"1" * 5000 + b"}", b'{"video": "caf\xe9.mp4"}', b'{"video": "b.mp4"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    first, second, third = rows_of(tmp_path / "a.jsonl")
    assert "not JSON" in first["error"]
    assert "not UTF-8" in second["error"]
    assert third == {"video": "b.mp4"}


def test_one_value_of_parquet_that_python_cannot_hold_is_a_reason_of_its_row(tmp_path):
    day = pa.array([0, 2**60, 0], pa.timestamp("ms"))
    table = pa.table({"video": ["a.mp4", "b.mp4", "c.mp4"], "topic": day})
    pq.write_table(table, tmp_path / "a.parquet")
    assert ["error" in row for row in rows_of(tmp_path / "a.parquet")] == [False, True, False]
