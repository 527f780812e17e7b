"""The index: round trip, refusals, byte ranges and the quick check of the shards."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.index import (
    INDEX_SCHEMA,
    check_shards,
    clips_per_shard,
    hash_ids,
    read_clip_bytes,
    read_index,
    select_split,
    shard_sizes,
    write_index,
)
from mama_ray.data.shard import ShardError
from mama_ray.errors import UserError
from tests.data.shard_factory import LOCAL, fake_clip, write_dataset


@pytest.fixture
def dataset(tmp_path):
    return str(tmp_path), write_dataset(tmp_path, [3, 1, 2], ("train", "val"))


def test_the_index_survives_its_file(dataset):
    directory, rows = dataset
    table = read_index(LOCAL, directory)
    assert table.replace_schema_metadata(None).equals(rows)
    assert {name: sizes["num_clips"] for name, sizes in shard_sizes(table).items()} == {
        "clips-000000.tar": 3,
        "clips-000001.tar": 1,
        "clips-000002.tar": 2,
    }


def test_some_columns_can_be_read_alone(dataset):
    table = read_index(LOCAL, dataset[0], columns=["clip_id", "split"])
    assert table.column_names == ["clip_id", "split"]


def test_every_clip_is_fetched_by_its_byte_range(dataset):
    directory, rows = dataset
    for number, row in enumerate(rows.to_pylist()):
        data = read_clip_bytes(LOCAL, directory, row["shard"], row["offset"], row["num_bytes"], sha256=row["sha256"])
        assert data == fake_clip(number)[1]


def test_changed_bytes_and_short_reads_are_named(dataset, tmp_path):
    directory, rows = dataset
    row = rows.to_pylist()[2]
    place = (row["shard"], row["offset"], row["num_bytes"])
    data = bytearray((tmp_path / row["shard"]).read_bytes())
    data[row["offset"]] ^= 1
    (tmp_path / row["shard"]).write_bytes(data)
    with pytest.raises(ShardError, match=r"clips-000000.tar has other bytes .*\(sha256 differs"):
        read_clip_bytes(LOCAL, directory, *place, sha256=row["sha256"])
    (tmp_path / row["shard"]).write_bytes(data[: row["offset"] + 5])
    with pytest.raises(ShardError, match=rf"clips-000000.tar is truncated: got 5 of {row['num_bytes']}"):
        read_clip_bytes(LOCAL, directory, *place, sha256=row["sha256"])


def test_select_split_keeps_the_order_and_may_find_nothing(dataset):
    table = read_index(LOCAL, dataset[0])
    val = select_split(table, "val")
    assert val["clip_id"].to_pylist() == ["clip-0001", "clip-0003", "clip-0005"]
    assert clips_per_shard(val) == [1, 1, 1]
    assert clips_per_shard(table) == [3, 1, 2]
    assert clips_per_shard(table.slice(0, 0)) == []
    assert len(select_split(table, "test")) == 0
    with pytest.raises(UserError, match=r"unknown split.*dev.*train, meta, val, test"):
        select_split(table, "dev")


def test_hash_of_ids_depends_on_the_set_alone():
    assert hash_ids(["b", "a"]) == hash_ids(["a", "b"]) != hash_ids(["ab"])


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_broken_index_is_one_clear_error(tmp_path, content):
    (tmp_path / "index.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read.*index\.parquet.*jobs/prepare\.py"):
        read_index(LOCAL, str(tmp_path))


def test_a_missing_index_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"no index of clips.*jobs/prepare\.py"):
        read_index(LOCAL, str(tmp_path))


def test_parquet_of_another_schema_is_refused_and_its_gaps_named(tmp_path):
    pq.write_table(pa.table({"clip_id": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(UserError, match=r"not an index of clips.*captions"):
        read_index(LOCAL, str(tmp_path))


def test_an_index_of_another_version_is_refused(tmp_path):
    schema = INDEX_SCHEMA.with_metadata({b"mama_ray.version": b"99"})
    pq.write_table(schema.empty_table(), tmp_path / "index.parquet")
    with pytest.raises(UserError, match="another version: got 99"):
        read_index(LOCAL, str(tmp_path))


def test_an_unsorted_index_is_refused(dataset):
    directory, rows = dataset
    write_index(LOCAL, directory, [rows.slice(2), rows.slice(0, 2)], {})
    with pytest.raises(UserError, match="not sorted"):
        read_index(LOCAL, directory)


def test_an_error_while_writing_keeps_the_old_index(dataset, tmp_path):
    directory, rows = dataset

    def tables():
        yield rows
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_index(LOCAL, directory, tables(), {})
    assert read_index(LOCAL, directory).num_rows == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_sound_shards_pass_the_check(dataset):
    check_shards(LOCAL, dataset[0], read_index(LOCAL, dataset[0]))


def test_the_check_names_every_bad_shard_in_one_error(dataset, tmp_path):
    directory, _ = dataset
    table = read_index(LOCAL, directory)
    (tmp_path / "clips-000000.tar").unlink()
    shard = tmp_path / "clips-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    shard = tmp_path / "clips-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-512] + b"x" * 512)
    with pytest.raises(UserError) as raised:
        check_shards(LOCAL, directory, table)
    message = str(raised.value)
    assert "clips-000000.tar (missing)" in message
    assert "clips-000001.tar (truncated" in message
    assert "clips-000002.tar (no end of archive)" in message


def test_the_check_looks_only_at_shards_of_the_given_rows(dataset, tmp_path):
    table = read_index(LOCAL, dataset[0])
    (tmp_path / "clips-000000.tar").unlink()
    check_shards(LOCAL, dataset[0], table.slice(3))


def test_questions_and_truth_are_stored_as_json(tmp_path):
    rows = write_dataset(tmp_path, [1])
    assert rows["truth"].to_pylist() == [None]
    assert json.loads(rows["questions"].to_pylist()[0] or "[]") == []
