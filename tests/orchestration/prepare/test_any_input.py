"""Whatever stands in a row or a member, it is a clip that every file can hold, or a ValueError; never another error."""

import contextlib
import datetime
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mama_ray.data.annotations import COLUMNS, annotation_from_json, parse_annotation
from mama_ray.data.index import INDEX_SCHEMA, index_row
from mama_ray.data.pairing import Sample
from mama_ray.data.shard import MemberLocation
from mama_ray.orchestration.prepare.foreign import clip_of
from tests.data.shard_factory import FACTS

TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["a.mp4", "nan", "train", " Val", "asr", "\ud83d", "[1]"]
)
JSON_LEAVES = st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | TEXTS
LEAVES = JSON_LEAVES | st.binary(max_size=4) | st.dates() | st.datetimes() | st.timedeltas() | st.decimals()


def nested(leaves):
    keys = st.sampled_from(["text", "source", "x"])
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner), max_leaves=6)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(COLUMNS), nested(LEAVES)), st.booleans())
def test_a_row_is_an_annotation_or_a_reason(row, with_video):
    row = {**row, "video": "v.mp4"} if with_video else row
    with contextlib.suppress(ValueError):
        annotation = parse_annotation(row)
        line = annotation.to_json().encode()
        assert annotation_from_json(line).to_json().encode() == line


NAMES = (
    "caption", "text", "captions", "split", "video_id", "topic", "clip_id", "start_s", "end_s", "truth", "questions",
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), nested(JSON_LEAVES)), st.binary(max_size=8), st.booleans())
def test_a_member_is_a_clip_that_the_index_can_hold_or_a_reason(fields, text, is_ours):
    ours = {"clip_id": "a", "video_id": "v", "start_s": 0, "end_s": 1, "captions": []} if is_ours else {}
    data = json.dumps({**ours, **fields}).encode()
    try:
        clip = clip_of(Sample("key", {"json": data, "txt": text}), 1.0, default_split="train", source="human")
    except ValueError:
        return
    row = index_row(clip, MemberLocation("key", "mp4", 512, 1, "0"), "a.tar", FACTS)
    pa.Table.from_pylist([row], schema=INDEX_SCHEMA)


def test_dates_are_named_in_the_reason():
    with pytest.raises(ValueError, match=r"start_s: got datetime.date\(2020, 1, 2\), wanted a number of seconds"):
        parse_annotation({"video": "v.mp4", "start_s": datetime.date(2020, 1, 2)})
