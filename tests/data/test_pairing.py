"""Texts go to the video of their very name; what cannot be told apart is refused, video by video."""

import io
import itertools

import pytest

from mama_ray.data.shard import ShardError, scan_shard
from tests.data.shard_factory import tar_bytes


def scan(*names: str, large: str = "") -> tuple[dict[str, dict[str, bytes]], dict[str, str]]:
    """Texts of each video that is taken, and the reason of each refused sample; a text holds its own name."""
    members = [(name, name.encode() * (800_000 if name == large else 1)) for name in names]
    taken, refused = {}, {}
    for sample in scan_shard(io.BytesIO(tar_bytes(members))):
        if sample.error is None:
            taken[sample.key] = sample.texts
            continue
        if sample.video is not None:
            taken.pop(sample.key, None)  # where it was given before
        refused[sample.key] = sample.error
    return taken, refused


def test_a_text_of_another_video_is_never_taken():
    taken, refused = scan("lecture_1.0.json", "lecture_1.1.json", "lecture_1.1.mp4")
    assert taken == {"lecture_1.1": {"json": b"lecture_1.1.json"}}
    assert refused == {"lecture_1.0": "annotations without a video: lecture_1.0.json"}


def test_parts_of_one_video_keep_their_own_texts():
    taken, refused = scan("walk.10s.txt", "walk.20s.mkv", "walk.20s.txt", "walk.30s.mkv", "walk.40s.json")
    assert taken == {"walk.20s": {"txt": b"walk.20s.txt"}, "walk.30s": {}}
    assert set(refused) == {"walk.10s", "walk.40s"}


@pytest.mark.parametrize("order", list(itertools.permutations(["k.mp4", "k.info.json", "k.mp4.json", "k.json"])))
def test_the_exact_name_is_the_annotation_whatever_stands_before_it(order):
    taken, refused = scan(*order)
    assert (taken, refused) == ({"k": {"json": b"k.json"}}, {})


def test_both_texts_of_a_video_are_taken_in_any_case_of_letters():
    taken, _ = scan("a.TXT", "a.MP4", "a.JSON")
    assert taken == {"a": {"txt": b"a.TXT", "json": b"a.JSON"}}


@pytest.mark.parametrize("names", [("a.json", "a.left.mp4", "a.right.mp4"), ("a.left.mp4", "a.right.mp4", "a.txt")])
def test_a_text_that_may_be_of_several_videos_goes_to_none(names):
    taken, refused = scan(*names, "b.mp4")
    assert taken == {"b": {}}
    assert set(refused) == {"a.left", "a.right"}
    assert all("may be of another video" in reason for reason in refused.values())


def test_a_text_with_a_video_of_its_own_does_not_spoil_others():
    taken, refused = scan("a.json", "a.mp4", "a.1.mp4")
    assert (taken, refused) == ({"a": {"json": b"a.json"}, "a.1": {}}, {})


def test_videos_that_differ_in_the_extension_are_two_unless_a_text_may_be_of_both():
    assert scan("a.mp4", "a.mkv", "b.mp4") == ({"a": {}, "a.mkv": {}, "b": {}}, {})
    taken, refused = scan("a.mkv", "a.mp4", "a.txt", "b.mp4")
    assert list(taken) == ["b"]
    assert set(refused) == {"a", "a.mp4"}


@pytest.mark.parametrize(
    "order", [("a.json", "a.JSON", "a.mp4"), ("a.json", "a.mp4", "a.JSON"), ("a.mp4", "a.json", "a.JSON")]
)
def test_two_texts_of_one_name_that_differ_are_both_refused(order):
    taken, refused = scan(*order, "b.mp4")
    assert (taken, refused) == ({"b": {}}, {"a": "annotations that cannot be told apart: a second a.JSON"})


def test_texts_of_pictures_are_no_videos_that_fail():
    assert scan("a.jpg", "a.json", "a.txt", "b.mp4") == ({"b": {}}, {})


def test_a_text_apart_from_its_video_is_told():
    taken, refused = scan("v1.0.mp4", "v1.1.mp4", "v1.0.txt", "v1.1.txt")
    assert taken == {}
    assert all(f"{key}.txt does not stand beside it" in refused[key] for key in ("v1.0", "v1.1"))


def test_a_text_that_is_too_large_is_a_reason_of_its_video():
    for names in (("a.mp4", "a.json"), ("a.json", "a.mp4")):
        taken, refused = scan(*names, "b.mp4", large="a.json")
        assert list(taken) == ["b"]
        assert refused == {"a": "annotations: a.json is too large"}


def test_names_in_folders_are_told_apart():
    taken, refused = scan("x.y/a.mp4", "x.y/a.json", "x.z/a.mp4")
    assert (taken, refused) == ({"x.y/a": {"json": b"x.y/a.json"}, "x.z/a": {}}, {})


def test_a_shard_whose_names_share_their_beginning_keeps_one_video_in_memory():
    names = [f"v1.0_{number:03d}.{extension}" for number in range(50) for extension in ("json", "mp4")]
    held = 0
    for sample in scan_shard(io.BytesIO(tar_bytes([(name, bytes(1000)) for name in names]))):
        held = max(held, len(sample.video_bytes))
        assert sample.error is None and list(sample.texts) == ["json"]
    assert held == 1000


def test_a_key_that_comes_back_later_is_interleaved():
    with pytest.raises(ShardError, match="interleaved: members of key 'a.1'"):
        scan("a.1.mp4", "b.mp4", "a.1.json")
