"""One hash names the clips of a job: moving changes nothing of it, whatever counts changes it."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mama_ray.data.contents import hash_clips
from mama_ray.data.index import read_index
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset


@pytest.fixture
def table(tmp_path) -> pa.Table:
    write_dataset(tmp_path, [3, 2])
    return read_index(Place.of(tmp_path))


def changed(table: pa.Table, column: str, row: int, value) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values, table[column].type))


def test_where_and_under_which_names_shards_lie_is_no_part_of_it(table):
    renamed = pc.replace_substring(table["shard"], "clips", "moved")
    moved = table.set_column(table.schema.get_field_index("shard"), "shard", renamed)
    assert hash_clips({"train": moved}) == hash_clips({"train": table})
    assert hash_clips({"train": pa.concat_tables([table.slice(0, 2), table.slice(2)])}) == hash_clips({"train": table})


def test_whatever_counts_changes_it(table):
    captions = [{"text": "text 1", "source": "asr"}]
    others = [
        changed(table, "sha256", 4, "f" * 64),
        changed(table, "clip_id", 0, "another"),
        changed(table, "captions", 1, captions),
        changed(table, "captions", 1, captions * 2),
        changed(table, "captions", 1, []),
        changed(table, "shard", 2, "clips-000001.tar"),  # a plan goes shard by shard
        table.slice(1),
        table.take([1, 0, 2, 3, 4]),
    ]
    hashes = [hash_clips({"train": one}) for one in (table, *others)] + [hash_clips({"meta": table})]
    assert len(set(hashes)) == len(hashes)
