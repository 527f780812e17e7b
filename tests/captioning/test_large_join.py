"""Captions that go through files reach the same clips, in the same order and told by the same hash, as in memory."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mama_ray.captioning import large_join as module
from mama_ray.captioning.join import join_captions
from mama_ray.captioning.large_join import ReadTable, large_join
from mama_ray.data import range_files
from mama_ray.errors import UserError
from tests.captioning.test_join import TABLES, USABLE, clips_of, part_of, row_of


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch):
    monkeypatch.setattr(module, "_CLIPS_PER_RANGE", 3)
    monkeypatch.setattr(module, "_CAPTIONS_PER_RANGE", 2)
    monkeypatch.setattr(range_files, "_HELD_BYTES", 32)


def reads(parts: list[pa.Table]) -> ReadTable:
    return lambda columns: (part.select(columns) for part in parts)


def joined(clips: pa.Table, tables: dict[str, list[pa.Table]], excluded: list[str]) -> tuple[pa.Table, dict]:
    ids = [clips.select(["clip_id"]).slice(start, 2) for start in range(0, len(clips), 2)]
    with large_join(ids, {name: reads(parts) for name, parts in tables.items()}, exclude_flags=excluded) as found:
        return pa.concat_tables(found.add_to(clips.slice(start, 1) for start in range(len(clips)))), found.uses


@given(TABLES, st.sets(st.sampled_from(["empty", "cut_off"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_a_join_through_files_is_that_in_memory(tables, excluded):
    clips = clips_of({"a": ["one"], "e": [], "b": [], "c": ["two", "three"], "d": [], "f": [], "g": ["four"]})
    named = {f"table {n}": [part_of(*rows, USABLE) for rows in parts] for n, parts in enumerate(tables)}
    wanted, uses = join_captions(clips, named, exclude_flags=sorted(excluded))
    found, found_uses = joined(clips, named, sorted(excluded))
    assert found.to_pylist() == wanted.to_pylist()
    assert found_uses == uses


def test_captions_of_the_original_of_a_smaller_clip_are_its_own():
    clips = clips_of({"a": [], "b": []}).append_column("source_sha256", pa.array(["the original", None]))
    parts = [part_of(row_of("a", "of the original", sha256="the original"), row_of("b", "its own"))]
    assert (
        joined(clips, {"t": parts}, [])[0].to_pylist()
        == join_captions(clips, {"t": parts}, exclude_flags=[])[0].to_pylist()
    )


def test_a_table_of_other_videos_is_refused_with_an_example_and_the_count():
    clips = clips_of({name: [] for name in "abcdefg"})
    parts = [
        part_of(row_of("a", "right"), row_of("g", "wrong", sha256="sha of an older g")),
        part_of(row_of("b", "wrong too", sha256="sha of an older b", flags=["empty"])),
        part_of(row_of("c", "whose?") | {"video_sha256": None}, row_of("z", "ignored", sha256="any")),
    ]
    with pytest.raises(UserError, match=r"table t .*3 captions.*clip b .*sha of an older b.*wanted.*sha of b;"):
        joined(clips, {"t": parts}, ["empty"])


@pytest.mark.parametrize("rows", [(), (row_of("z", "x"),), (row_of("a", "x", flags=["empty"]),)])
def test_a_table_of_which_nothing_can_be_used_is_refused(rows):
    with pytest.raises(UserError, match="has no caption for these clips.*0 used"):
        joined(clips_of({"a": ["one"]}), {"table": [part_of(*rows)]}, ["empty"])
