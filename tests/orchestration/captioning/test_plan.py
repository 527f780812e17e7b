"""What a captioning job keeps of the index: the columns that it reads, of any number of clips."""

import hashlib

import pyarrow as pa
import pytest

from mama_ray.data.index import MEMORY_SCHEMA, read_index
from mama_ray.data.index_rows import IndexRows
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.parts import chunk_clips_of
from mama_ray.orchestration.captioning.plan import _load_clips
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset

load = _load_clips._function  # what the remote task runs


@pytest.mark.parametrize(("split", "num_clips", "num_shards"), [(None, 6, 3), ("val", 3, 3), ("train", 3, 2)])
def test_the_job_keeps_five_columns_none_of_which_ends_at_2_gib(tmp_path, split, num_clips, num_shards):
    write_dataset(tmp_path, [3, 1, 2], ("train", "val"))
    table, (count, shards, _) = load(str(tmp_path), split, 100)
    assert (len(table), count, shards) == (num_clips, num_clips, num_shards)
    assert table.column_names == ["clip_id", "shard", "offset", "num_bytes", "sha256"]
    assert all(field.type == MEMORY_SCHEMA.field(field.name).type for field in table.schema)
    rows = read_index(Place.of(tmp_path)).to_pylist()
    wanted = [{name: row[name] for name in table.column_names} for row in rows if split in (None, row["split"])]
    assert table.take(pa.array(range(num_clips))).to_pylist() == wanted


def test_a_split_without_clips_and_a_damaged_shard_are_told(tmp_path):
    write_dataset(tmp_path, [2, 2])
    with pytest.raises(UserError, match="no clips to caption"):
        load(str(tmp_path), "test", 100)
    (tmp_path / "clips-000001.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"clips-000001\.tar \(truncated: 0 of"):
        load(str(tmp_path), None, 100)


@pytest.mark.parametrize("split", [None, "val"])
def test_more_rows_than_are_held_are_the_same_rows_with_the_same_hash(tmp_path, split):
    write_dataset(tmp_path, [30, 11, 20], ("train", "val"))
    table, facts = load(str(tmp_path), split, 100)
    rows, same_facts = load(str(tmp_path), split, 3)
    assert same_facts == facts
    assert isinstance(rows, IndexRows)
    assert rows.read().equals(table)


def test_the_hash_of_the_clips_is_that_of_earlier_versions(tmp_path):
    rows = write_dataset(tmp_path, [3, 2])
    digest = hashlib.sha256()
    for name in ("clip_id", "sha256"):
        digest.update("\n".join(rows[name].to_pylist()).encode())
    assert load(str(tmp_path), None, 100)[1][2] == digest.hexdigest()


@pytest.mark.parametrize(("num_clips", "size"), [(1, 32), (1 << 20, 32), (2_000_000, 64), (100_000_000, 128)])
def test_more_clips_have_larger_chunks(num_clips, size):
    assert chunk_clips_of(num_clips) == size
