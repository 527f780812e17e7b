"""A person's texts: none is lost to a file that is damaged."""

import json

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.narrate.edits import EDITS_NAME, Edits
from mama_ray.storage.small_files import MAX_JSON_BYTES

DAMAGED = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": "half a te', b"[" * 100_000]


def test_texts_are_kept_and_taken_back(tmp_path):
    edits = Edits(tmp_path)
    edits.put("a", "mine")
    edits.put("b", "")
    edits.put("a", None)
    for again in (edits, Edits(tmp_path)):
        assert (again.texts, again.notice) == ({"b": ""}, None)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_told_and_kept_aside_before_a_new_one_is_written(tmp_path, content):
    (tmp_path / EDITS_NAME).write_bytes(content)
    edits = Edits(tmp_path)
    assert edits.texts == {} and EDITS_NAME in (edits.notice or "")
    assert (tmp_path / EDITS_NAME).read_bytes() == content  # nothing is changed by a look
    edits.put("a", "mine")
    for again in (edits, Edits(tmp_path)):
        assert again.texts == {"a": "mine"}
        assert "edits.damaged-1.json" in (again.notice or "")
    assert (tmp_path / "edits.damaged-1.json").read_bytes() == content


def test_what_is_whole_of_a_damaged_file_counts(tmp_path):
    content = json.dumps({"a": "mine", "b": 5, "c": None})
    (tmp_path / EDITS_NAME).write_text(content)
    edits = Edits(tmp_path)
    assert edits.texts == {"a": "mine"} and edits.notice
    edits.put("d", "also")
    assert Edits(tmp_path).texts == {"a": "mine", "d": "also"}
    assert (tmp_path / "edits.damaged-1.json").read_text() == content


def test_a_second_damaged_file_does_not_take_the_place_of_the_first(tmp_path):
    for content in ("first", "second"):
        (tmp_path / EDITS_NAME).write_text(content)
        Edits(tmp_path).put("a", content)
    assert [(tmp_path / f"edits.damaged-{one}.json").read_text() for one in (1, 2)] == ["first", "second"]


def test_a_text_that_the_disk_does_not_take_does_not_count(tmp_path):
    edits = Edits(tmp_path)
    edits.put("a", "mine")
    (tmp_path / EDITS_NAME).unlink()
    (tmp_path / EDITS_NAME).mkdir()
    with pytest.raises(OSError, match="directory"):
        edits.put("b", "lost")
    assert edits.texts == {"a": "mine"}


def test_texts_that_are_too_long_together_are_refused_and_none_is_lost(tmp_path):
    texts = {f"{number}": "\N{SNOWMAN}" * 2000 for number in range(MAX_JSON_BYTES // 6100)}
    (tmp_path / EDITS_NAME).write_text(json.dumps(texts, ensure_ascii=False))
    edits = Edits(tmp_path)
    edits.put("one more", "fits")
    with pytest.raises(UserError, match=r"too long.*32 MiB"):
        edits.put("another", "a" * (1 << 20))
    for again in (edits, Edits(tmp_path)):
        assert (again.texts, again.notice) == (texts | {"one more": "fits"}, None)


def test_more_texts_than_can_be_added_to_are_read(tmp_path):
    texts = {f"{number}": "\N{SNOWMAN}" * 2000 for number in range(MAX_JSON_BYTES // 6000)}
    (tmp_path / EDITS_NAME).write_text(json.dumps(texts, ensure_ascii=False))
    edits = Edits(tmp_path)
    edits.put("0", None)
    assert (Edits(tmp_path).texts, edits.notice) == ({name: text for name, text in texts.items() if name != "0"}, None)
