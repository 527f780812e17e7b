"""Captions of tables reach the very clips they were written from, against a naive twin; nothing is lost uncounted."""

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.captioning.join import COLUMNS, join_captions
from mama_ray.captioning.table import CAPTION_SCHEMA
from mama_ray.data.index import CAPTIONS_TYPE, MEMORY_SCHEMA
from mama_ray.errors import UserError

SCHEMA = pa.schema([CAPTION_SCHEMA.field(name) for name in COLUMNS])


def clips_of(captions: dict[str, list[str]]) -> pa.Table:
    lists = [[{"text": text, "source": "human"} for text in texts] for texts in captions.values()]
    names = list(captions)
    return pa.table(
        {"clip_id": names, "sha256": [f"sha of {name}" for name in names], "captions": pa.array(lists, CAPTIONS_TYPE)}
    )


def row_of(clip_id: str, caption: str | None, *, flags=(), error=None, sha256=None, source="generated") -> dict:
    values = (clip_id, sha256 or f"sha of {clip_id}", caption, source, None if flags is None else list(flags), error)
    return dict(zip(COLUMNS, values, strict=True))


def part_of(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def texts_of(clips: pa.Table) -> dict[str, list[str]]:
    return {row["clip_id"]: [caption["text"] for caption in row["captions"]] for row in clips.to_pylist()}


def naive_join(clips: pa.Table, tables: dict[str, list[pa.Table]], excluded: set[str]) -> tuple[list, dict]:
    by_id = {row["clip_id"]: row for row in clips.to_pylist()}
    counts = {}
    for name, parts in tables.items():
        count = dict.fromkeys(("used", "flagged", "errors", "other_clips"), 0)
        for row in (row for part in parts for row in part.to_pylist()):
            if row["clip_id"] not in by_id:
                count["other_clips"] += 1
            elif row["error"] is not None or row["caption"] is None:
                count["errors"] += 1
            elif excluded & set(row["flags"] or []):
                count["flagged"] += 1
            else:
                count["used"] += 1
                caption = {"text": row["caption"], "source": row["source"]}
                by_id[row["clip_id"]]["captions"].append(caption)
        counts[name] = count
    return list(by_id.values()), counts


NAMES = ("a", "b", "c", "d", "stranger")
ROWS = st.builds(
    row_of,
    st.sampled_from(NAMES),
    st.one_of(st.none(), st.text(max_size=4)),
    flags=st.one_of(st.none(), st.lists(st.sampled_from(["empty", "cut_off", "duplicate"]), max_size=2)),
    error=st.sampled_from([None, None, "no such video"]),
    source=st.sampled_from(["generated", "rephrased"]),
)
USABLE = row_of("b", "a caption of b")  # a table of which nothing is used is refused
TABLES = st.lists(st.lists(st.lists(ROWS, max_size=5), min_size=1, max_size=4), max_size=3)


@given(TABLES, st.sets(st.sampled_from(["empty", "cut_off"])), st.integers(1, 8))
def test_a_join_equals_a_double_loop(tables, excluded, rows_per_lookup):
    clips = clips_of({"a": ["one"], "b": [], "c": ["two", "three"], "d": []})
    named = {f"table {n}": [part_of(*rows, USABLE) for rows in parts] for n, parts in enumerate(tables)}
    joined, uses = join_captions(clips, named, exclude_flags=sorted(excluded), rows_per_lookup=rows_per_lookup)
    rows, counts = naive_join(clips, named, excluded)
    assert joined.to_pylist() == rows
    assert {name: {key: getattr(use, key) for key in counts[name]} for name, use in uses.items()} == counts


@given(st.lists(ROWS, max_size=12), st.lists(st.integers(0, 12), max_size=4), st.integers(1, 8))
def test_the_digest_does_not_depend_on_how_a_table_is_cut(rows, cuts, rows_per_lookup):
    clips = clips_of({name: [] for name in "abcd"})
    whole = part_of(*rows, USABLE)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    parts = [whole.slice(start, stop - start) for start, stop in pairwise(edges)]
    _, cut_up = join_captions(clips, {"table": parts}, exclude_flags=[], rows_per_lookup=rows_per_lookup)
    _, uncut = join_captions(clips, {"table": [whole]}, exclude_flags=[])
    assert cut_up == uncut


def test_the_digest_is_that_of_what_was_used():
    clips = clips_of({"a": [], "b": []})

    def digest(*rows: dict) -> str:
        return join_captions(clips, {"table": [part_of(*rows)]}, exclude_flags=["empty"])[1]["table"].sha256

    first = digest(row_of("a", "one"), row_of("b", "two"))
    ignored = (row_of("z", "of another corpus"), row_of("b", None, error="gone"), row_of("a", "", flags=["empty"]))
    assert digest(row_of("a", "one"), *ignored, row_of("b", "two")) == first
    others = [
        digest(row_of("b", "two"), row_of("a", "one")),
        digest(row_of("a", "two"), row_of("b", "one")),
        digest(row_of("a", "one"), row_of("b", "two."), row_of("b", "two")),
        digest(row_of("a", "one", source="rephrased"), row_of("b", "two")),
    ]
    assert len({first, *others}) == 5


def test_a_table_of_other_videos_is_refused_with_an_example_and_the_count():
    clips = clips_of({"a": [], "b": []})
    parts = [
        part_of(row_of("a", "right")),
        part_of(row_of("b", "wrong", sha256="sha of an older b"), row_of("z", "ignored", sha256="any")),
        part_of(row_of("b", "wrong too", sha256="sha of an older b", flags=["empty"])),
        part_of(row_of("b", None, error="unreadable", sha256="sha of an older b")),
    ]
    with pytest.raises(UserError, match=r"table s3://x/t .*2 captions.*clip b .*sha of an older b.*wanted.*sha of b;"):
        join_captions(clips, {"s3://x/t": parts}, exclude_flags=["empty"])


def test_a_caption_without_the_hash_of_its_video_is_refused():
    row = row_of("a", "whose?") | {"video_sha256": None}
    with pytest.raises(UserError, match="other videos"):
        join_captions(clips_of({"a": []}), {"table": [part_of(row)]}, exclude_flags=[])


@pytest.mark.parametrize("rows", [(), (row_of("z", "x"),), (row_of("a", "x", flags=["empty"]),)])
def test_a_table_of_which_nothing_can_be_used_is_refused(rows):
    with pytest.raises(UserError, match="has no caption for these clips.*0 used"):
        join_captions(clips_of({"a": ["one"]}), {"table": [part_of(*rows)]}, exclude_flags=["empty"])


def test_captions_of_several_tables_and_samples_come_in_their_order():
    first = [part_of(row_of("b", "b0"), row_of("b", "b1")), part_of(row_of("a", "a0"))]
    second = [part_of(row_of("a", "a0"), row_of("b", "b2"))]
    joined, _ = join_captions(clips_of({"a": ["mine"], "b": []}), {"1": first, "2": second}, exclude_flags=[])
    assert texts_of(joined) == {"a": ["mine", "a0", "a0"], "b": ["b0", "b1", "b2"]}


@pytest.mark.parametrize("kind", [CAPTIONS_TYPE, MEMORY_SCHEMA.field("captions").type])
def test_joined_captions_have_the_types_that_the_index_has_in_memory(kind):
    clips = clips_of({"a": ["mine"], "b": []})
    clips = clips.set_column(2, "captions", clips["captions"].cast(kind))
    joined, _ = join_captions(clips, {"1": [part_of(row_of("b", "b0"))]}, exclude_flags=[])
    assert joined["captions"].type == MEMORY_SCHEMA.field("captions").type
    assert texts_of(joined) == {"a": ["mine"], "b": ["b0"]}


def test_without_tables_the_clips_stay_what_they_were():
    clips = clips_of({"a": ["one"], "b": []})
    assert join_captions(clips, {}, exclude_flags=[]) == (clips, {})
