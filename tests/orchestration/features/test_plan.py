"""Clips of a large corpus stay in the index: the same clips, told by the same hash, as from a table."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from mama_ray.data.index_rows import IndexRows
from mama_ray.data.region_features.table import INDEX_NAME, INDEX_SCHEMA
from mama_ray.errors import UserError
from mama_ray.orchestration.features import finish
from mama_ray.orchestration.features.plan import _load_clips
from tests.data.shard_factory import write_dataset

load = _load_clips._function  # what the remote task runs


@pytest.mark.parametrize("split", [None, "val"])
def test_rows_that_are_read_are_those_of_the_table(tmp_path, split):
    write_dataset(tmp_path, [9, 1, 14], ("train", "val"))
    table, facts = load(str(tmp_path), split, 1000)
    rows, same_facts = load(str(tmp_path), split, 3)
    assert isinstance(rows, IndexRows)
    assert facts == same_facts
    assert rows.read().equals(table)


def test_a_split_without_clips_is_told(tmp_path):
    write_dataset(tmp_path, [3])
    with pytest.raises(UserError, match=r"no clips to look at.*split val"):
        load(str(tmp_path), "val", 1000)


@pytest.mark.ray
def test_the_index_of_parts_is_that_of_one_table(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "_ROWS_PER_GROUP", 8)
    rows = [
        {"row": row, "clip_id": f"clip-{row}", "video_sha256": f"sha-{row}", "error": "bad" if row % 5 == 0 else None}
        for row in range(37)
    ]
    whole = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    parts = [ray.put(whole.slice(start, 5)) for start in range(0, 37, 5)]
    counts = finish._write_index._function(str(tmp_path), parts)
    assert counts == {"features": 29, "error": 8}
    assert pq.read_table(tmp_path / INDEX_NAME).equals(whole)
