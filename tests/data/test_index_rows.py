"""Rows of an index that are read when they are wanted are those of its table, whatever its row groups."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mama_ray.data.index import INDEX_NAME, read_index, select_split
from mama_ray.data.index_file import open_index
from mama_ray.data.index_rows import Chosen, IndexRows
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset

COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "captions")


def with_groups_of(folder, num_rows: int) -> None:
    """Write the index of a folder anew, with row groups of so many rows."""
    table = pq.read_table(folder / INDEX_NAME)
    pq.write_table(table, folder / INDEX_NAME, row_group_size=num_rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    write_dataset(folder, [7, 1, 20, 9, 13], ("train", "val", "train"))
    with_groups_of(folder, 6)
    return folder


@given(mask=st.lists(st.booleans(), max_size=10_000), start=st.integers(0, 9_000), length=st.integers(0, 1_000))
@settings(max_examples=50, deadline=None)
def test_a_choice_has_the_rows_of_its_mask(mask, start, length):
    mask = np.array(mask, bool)
    chosen = Chosen.of(mask)
    rows = np.flatnonzero(mask)
    assert len(chosen) == len(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    assert np.array_equal(chosen.rows(order), rows[order])
    start, stop = min(start, len(mask)), min(start + length, len(mask))
    assert np.array_equal(chosen.mask(start, stop), mask[start:stop])


@pytest.mark.parametrize("split", [None, "val"])
def test_rows_are_those_of_the_table(folder, split):
    table = read_index(Place.of(folder), columns=[*COLUMNS, "split"])
    chosen = None
    if split is not None:
        chosen = Chosen.of(np.array(table["split"].to_pylist()) == split)
        table = select_split(table, split)
    table = table.select(COLUMNS).replace_schema_metadata(None)
    rows = IndexRows(open_index(Place.of(folder)), COLUMNS, chosen)
    rows = pickle.loads(pickle.dumps(rows))  # noqa: S301 - as Ray hands it on
    assert len(rows) == len(table) > 12
    assert rows.read().equals(table.combine_chunks())
    for positions in ([], [3], [11, 2, 2, 7], np.arange(len(table))[::-1].copy()):
        assert rows.take(positions).equals(table.take(pa.array(positions, pa.int64())))
    assert rows.slice(5, 6).equals(table.slice(5, 6).combine_chunks())
    assert rows.slice(len(table) - 2, 6).equals(table.slice(len(table) - 2).combine_chunks())
    assert rows.select(["sha256"]).take([4]).equals(table.select(["sha256"]).take([4]))
    with pytest.raises(IndexError, match=f"rows 0 to {len(table)} of"):
        rows.take([0, len(table)])


def test_an_index_that_was_written_anew_is_not_read_by_its_old_row_groups(tmp_path):
    write_dataset(tmp_path, [7, 3])
    rows = IndexRows(open_index(Place.of(tmp_path)), COLUMNS)
    assert len(rows.take([1])) == 1
    write_dataset(tmp_path, [4, 2, 9, 8])
    with pytest.raises(UserError, match="was changed"):
        rows.select(["sha256"]).take([1])


def test_what_is_wrong_in_a_later_row_group_is_told_when_it_is_reached(tmp_path):
    write_dataset(tmp_path, [70_000 // 1000] * 3)
    table = pq.read_table(tmp_path / INDEX_NAME)
    pq.write_table(pa.concat_tables([table.slice(100), table.slice(0, 100)]), tmp_path / INDEX_NAME, row_group_size=50)
    with pytest.raises(UserError, match="not sorted"):
        list(open_index(Place.of(tmp_path)).tables(["shard", "offset"]))
