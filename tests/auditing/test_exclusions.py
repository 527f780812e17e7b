"""What a list of exclusions takes away, and that nothing in it can run or be misread."""

import csv
import io

import pyarrow as pa
import pytest

from mama_ray.auditing.exclusions import (
    Exclusion,
    ExclusionCounts,
    caption_id,
    exclusions_to_csv,
    hash_exclusions,
    leave_out,
    read_exclusions,
)
from mama_ray.data.index import MEMORY_SCHEMA
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

CAPTIONS = MEMORY_SCHEMA.field("captions").type


def clips_of(**captions: list[str]) -> pa.Table:
    texts = [[{"text": text, "source": "human"} for text in own] for own in captions.values()]
    return pa.table({"clip_id": pa.array(captions, pa.large_string()), "captions": pa.array(texts, CAPTIONS)})


def texts_of(clips: pa.Table) -> dict[str, list[str]]:
    return {row["clip_id"]: [one["text"] for one in row["captions"]] for row in clips.to_pylist()}


def test_clips_and_single_captions_are_left_out_and_counted():
    clips = clips_of(a=["one", "two"], b=["three"], c=["four", "two"], d=[])
    listed = [Exclusion("b"), Exclusion("a", caption_id("two")), Exclusion("c", caption_id("one")), Exclusion("z")]
    left, counts = leave_out(clips, listed)
    assert texts_of(left) == {"a": ["one"], "c": ["four", "two"], "d": []}
    assert counts == ExclusionCounts(clips=1, captions=1)
    assert left.schema == clips.schema
    part, _ = leave_out(clips.slice(1), listed)
    assert texts_of(part) == {"c": ["four", "two"], "d": []}


def test_an_empty_list_takes_nothing_away():
    clips = clips_of(a=["one"])
    assert leave_out(clips, [])[0] is clips


def test_a_list_is_read_as_it_was_written(tmp_path):
    listed = [Exclusion("a", caption_id("=1+1"), "low weight", "=1+1"), Exclusion("b", "", 'with "quotes", and\nlines')]
    (tmp_path / "exclude.csv").write_text(exclusions_to_csv(listed), encoding="utf-8")
    read = read_exclusions(Place.of(tmp_path / "exclude.csv"))
    assert [(one.clip_id, one.caption_id) for one in read] == [(one.clip_id, one.caption_id) for one in listed]
    assert hash_exclusions(read) == hash_exclusions(listed[::-1])


@pytest.mark.parametrize("name", ["-abc", "-1", "007", "1e5", "2024-01-02", "12345678901234567890"])
def test_ids_that_a_spreadsheet_would_change_are_text_there_and_are_read_as_they_were(tmp_path, name):
    listed = [Exclusion(name, "0123456789012345"), Exclusion("a1", "00000000000000ab")]
    text = exclusions_to_csv(listed)
    _, first, second = csv.reader(io.StringIO(text))
    assert (first[:2], second[:2]) == ([f"'{name}", "'0123456789012345"], ["a1", "00000000000000ab"])
    (tmp_path / "exclude.csv").write_text(text, encoding="utf-8")
    read = read_exclusions(Place.of(tmp_path / "exclude.csv"))
    assert [(one.clip_id, one.caption_id) for one in read] == [(one.clip_id, one.caption_id) for one in listed]


@pytest.mark.parametrize("text", ["=CMD()", "+1", "-2", "@SUM(A1)", "  =HYPERLINK()", "\t=1", "\r\n=1"])
def test_no_cell_is_a_formula(text):
    for row in csv.reader(io.StringIO(exclusions_to_csv([Exclusion("a", "", text, text)]))):
        assert not any(cell.strip().startswith(("=", "+", "-", "@")) for cell in row)


def test_a_list_of_ids_that_a_person_wrote_is_enough(tmp_path):
    (tmp_path / "mine.csv").write_text("clip_id\na\nb\n")
    assert read_exclusions(Place.of(tmp_path / "mine.csv")) == [Exclusion("a"), Exclusion("b")]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"video\nx\n", "lists no clips"),
        (b"clip_id\na\n../b\n", "line 3"),
        (b"clip_id,caption_id\na,nonsense\n", "line 2: caption_id"),
        (b"clip_id\n\xff\xfe\n", "not a CSV"),
        (b'clip_id\n"a\n', "not a CSV"),
        (b"", "lists no clips"),
    ],
)
def test_what_is_no_list_is_told_with_its_line(tmp_path, content, named):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(UserError, match=named):
        read_exclusions(Place.of(tmp_path / "bad.csv"))


def test_a_list_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="no list of clips"):
        read_exclusions(Place.of(tmp_path / "none.csv"))
