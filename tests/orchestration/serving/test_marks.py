"""Marks: on the disk before they are answered, none lost and none made up by a crash."""

import resource
import signal

import pytest

from mama_ray.orchestration.serving.marks import Mark, MarkStore

FIRST, SECOND = "0" * 16, "1" * 16


def mark(clip_id: str, name: str, text: str = "", caption: str = FIRST) -> Mark:
    return Mark.model_validate({"clip_id": clip_id, "caption_id": caption, "mark": name, "text": text})


def test_marks_survive_a_restart_and_the_last_one_counts(tmp_path):
    store = MarkStore(tmp_path / "weights")
    for one in (mark("a", "wrong"), mark("b", "fine"), mark("a", "rewrite", 'a "better"\none ünd'), mark("b", "")):
        store.add(one)
    store.add(mark("a", "wrong", caption=SECOND))
    for again in (store, MarkStore(tmp_path / "weights")):
        assert again.get("a", FIRST) == mark("a", "rewrite", 'a "better"\none ünd')
        assert again.get("b", FIRST) is None
        assert again.all() == [again.get("a", FIRST), again.get("a", SECOND)]


@pytest.mark.parametrize("torn", [b'{"clip_id": "c", "capt', b"\xff\xfe", b"[]\n", b"null", b"[" * 100_000])
def test_a_line_that_a_crash_cut_off_is_no_mark_and_hurts_none_after_it(tmp_path, torn, caplog):
    MarkStore(tmp_path).add(mark("a", "wrong"))
    with (tmp_path / "marks.jsonl").open("ab") as file:
        file.write(torn)
    store = MarkStore(tmp_path)
    assert "1 lines are no marks" in caplog.text
    store.add(mark("b", "fine"))
    assert [one.clip_id for one in MarkStore(tmp_path).all()] == ["a", "b"]
    assert torn in (tmp_path / "marks.jsonl").read_bytes()


def test_a_mark_that_the_disk_does_not_take_does_not_count(tmp_path):
    store = MarkStore(tmp_path)
    store.add(mark("a", "wrong"))
    size = (tmp_path / "marks.jsonl").stat().st_size
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))  # room for a part of a line
    try:
        with pytest.raises(OSError, match=r"part of a mark|too large"):
            store.add(mark("b", "wrong"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.get("b", FIRST) is None
    store.add(mark("c", "fine"))
    assert [one.clip_id for one in MarkStore(tmp_path).all()] == ["a", "c"]
