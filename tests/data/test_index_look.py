"""A look at an index tells what it is and how many clips its splits have, or what is wrong with it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data import index_look
from mama_ray.data.index import INDEX_NAME, INDEX_SCHEMA, write_index
from mama_ray.data.index_look import look_at_index
from mama_ray.errors import UserError
from mama_ray.storage.places import Place


@pytest.fixture
def folder(tmp_path) -> Place:
    splits = ["train"] * 5 + ["val"] * 2
    rows = [{"clip_id": str(n), "split": split, "shard": "a.tar", "offset": 512 * n} for n, split in enumerate(splits)]
    sizes = {"a.tar": {"num_bytes": 1024, "num_clips": len(rows)}}
    write_index(Place.of(tmp_path), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return Place.of(tmp_path)


def test_the_clips_of_each_split_are_counted(folder):
    assert look_at_index(folder) == {"train": 5, "meta": 0, "val": 2, "test": 0}


def test_a_very_large_index_is_checked_and_not_counted(folder, monkeypatch):
    monkeypatch.setattr(index_look, "_MOST_COUNTED", 3)
    assert look_at_index(folder) is None


def test_what_is_no_index_is_refused_as_by_a_reader(tmp_path):
    with pytest.raises(UserError, match="no index of clips"):
        look_at_index(Place.of(tmp_path))
    (tmp_path / INDEX_NAME).write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match="cannot be read"):
        look_at_index(Place.of(tmp_path))
    pq.write_table(pa.table({"clip_id": ["a"]}), tmp_path / INDEX_NAME)
    with pytest.raises(UserError, match="not an index of clips"):
        look_at_index(Place.of(tmp_path))
