"""The clip contract: names, checks and the JSON member."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.data.clip import (
    CLIP_ID_PATTERN,
    MAX_CLIP_ID_LENGTH,
    Caption,
    Clip,
    clip_from_json,
    clip_to_json,
    make_clip_id,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def test_a_whole_video_with_a_legal_name_keeps_it():
    assert make_clip_id("video7010", 0.0, None) == "video7010"


@given(TEXT, st.floats(0, 1e6), st.none() | st.floats(1e-3, 1e6))
def test_made_clip_ids_are_legal_and_deterministic(video_id, start_s, end_s):
    clip_id = make_clip_id(video_id, start_s, end_s)
    assert re.fullmatch(CLIP_ID_PATTERN, clip_id)
    assert len(clip_id) <= MAX_CLIP_ID_LENGTH
    assert clip_id == make_clip_id(video_id, start_s, end_s)


@pytest.mark.parametrize(
    "others",
    [
        [("a/b", 0, None), ("a_b", 0, None), ("a-b", 0, None), ("a b", 0, None)],
        [("v", 0, 1), ("v", 0, 1.0001), ("v", 0.0001, 1), ("v", 0, None)],
        [("x" * 200, 0, None), ("x" * 201, 0, None)],
        [("é", 0, None), ("ü", 0, None), ("", 0, None)],
    ],
)
def test_different_clips_get_different_ids(others):
    assert len({make_clip_id(*other) for other in others}) == len(others)


@given(TEXT.filter(str.strip), st.lists(TEXT.filter(str.strip), max_size=3), st.floats(0, 1e5))
def test_a_clip_survives_its_json(video_id, texts, start_s):
    clip = Clip(
        "id-1",
        video_id,
        start_s,
        start_s + 1,
        tuple(Caption(text, "asr") for text in texts),
        topic="cooking",
        split="meta",
        questions=({"question": "what?", "answer": "this"},),
        truth={"wrong": True},
    )
    assert clip_from_json(clip_to_json(clip)) == clip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"clip_id": "a.b"}, "clip_id"),
        ({"clip_id": ""}, "clip_id"),
        ({"clip_id": "x" * 91}, "clip_id"),
        ({"video_id": ""}, "video_id"),
        ({"start_s": -1.0}, "start_s"),
        ({"start_s": float("nan")}, "start_s"),
        ({"end_s": 1.0}, "end_s"),
        ({"end_s": float("inf")}, "end_s"),
        ({"split": "dev"}, "split"),
    ],
)
def test_a_bad_clip_names_its_field(change, named):
    fields = {"clip_id": "a", "video_id": "v", "start_s": 1.0, "end_s": 2.0, "captions": (), **change}
    with pytest.raises(ValueError, match=f"^{named}: got"):
        Clip(**fields)


@pytest.mark.parametrize("caption", [{"text": "  "}, {"text": "x", "source": "robot"}, {"text": 3}])
def test_a_bad_caption_is_refused(caption):
    with pytest.raises(ValueError, match=r"^caption"):
        Caption(**caption)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[1]", b"null", b'{"clip_id": "a"}', b"{" * 100_000, b'{"captions": 3}'],
)
def test_bytes_that_are_no_clip_raise_a_readable_value_error(data):
    with pytest.raises(ValueError, match="clip JSON"):
        clip_from_json(data)


def test_json_with_captions_of_a_wrong_type_is_refused():
    record = json.loads(clip_to_json(Clip("a", "v", 0.0, 1.0, ()))) | {"captions": ["text"]}
    with pytest.raises(ValueError, match="clip JSON"):
        clip_from_json(json.dumps(record).encode())
