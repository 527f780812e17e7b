"""A file that cannot be read is one line that names it, whoever reads it."""

import pytest

from mama_ray.data.benchmarks.charades_ego import read_class_texts, read_videos
from mama_ray.data.benchmarks.egtea import read_action_texts, read_clips
from mama_ray.data.benchmarks.ek100 import read_caption_list, read_classes, read_segments, read_tail, read_unseen
from mama_ray.data.benchmarks.official_csv import parse_numbers, parse_whole
from mama_ray.errors import UserError

READERS = [
    lambda path: read_segments(path, "test"),
    lambda path: read_caption_list(path, []),
    read_classes,
    lambda path: read_tail(path, "verb"),
    read_unseen,
    lambda path: read_videos(path, "test"),
    read_class_texts,
    read_action_texts,
    lambda path: read_clips(path, "test"),
]


@pytest.mark.parametrize("content", ["öffne".encode("latin-1") * 9, "id,key\n1,a\n".encode("utf-16"), b""])
@pytest.mark.parametrize("read", READERS)
def test_an_empty_file_and_one_in_another_encoding_are_named(tmp_path, read, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.csv") as error:
        read(tmp_path / "a.csv")
    assert "\n" not in str(error.value)
    if content:
        assert "a file is not UTF-8" in str(error.value)


def test_a_field_without_end_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("id,key\n1," + "x" * 200_000 + "\n")
    with pytest.raises(UserError, match=r"a file cannot be read: got a\.csv .*field larger than field limit"):
        read_classes(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("read", "content", "told"),
    [
        (read_classes, "id,key\n0,a\nx,b\n", r"line 3 of a\.csv, column id: got got 'x', wanted a whole number"),
        (read_classes, "id,key\n7,a\n07,b\n", "has a class twice"),
        (lambda path: read_tail(path, "verb"), "verb\nopen\n", r"line 2 of a\.csv, column verb"),
    ],
)
def test_a_class_that_is_no_number_is_named(tmp_path, read, content, told):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=told):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["²", "١", "-1", "1.0", "", "9" * 5000])
def test_what_is_no_whole_number_is_told(text):
    with pytest.raises(ValueError, match="wanted a whole number"):
        parse_whole(text)
    assert parse_numbers("[3, 14]") == (3, 14)
