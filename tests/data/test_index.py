"""The index: round trip, refusals, byte ranges and the quick check of the shards."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.index import (
    CAPTIONS_TYPE,
    INDEX_SCHEMA,
    MEMORY_SCHEMA,
    clips_per_shard,
    hash_ids,
    read_index,
    select_captioned,
    select_split,
    shard_sizes,
    write_index,
)
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard import ShardError
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from tests.data.shard_factory import fake_clip, write_dataset


@pytest.fixture
def dataset(tmp_path):
    return str(tmp_path), write_dataset(tmp_path, [3, 1, 2], ("train", "val"))


def test_the_index_survives_its_file(dataset):
    directory, rows = dataset
    table = read_index(Place.of(directory))
    assert table.replace_schema_metadata(None).cast(INDEX_SCHEMA).equals(rows)
    assert {name: sizes["num_clips"] for name, sizes in shard_sizes(table).items()} == {
        "clips-000000.tar": 3,
        "clips-000001.tar": 1,
        "clips-000002.tar": 2,
    }


def test_some_columns_can_be_read_alone(dataset):
    table = read_index(Place.of(dataset[0]), columns=["clip_id", "split"])
    assert table.column_names == ["clip_id", "split"]


def types_within(kind: pa.DataType) -> list[pa.DataType]:
    """A type and the types of all that it holds."""
    return [kind, *(inner for n in range(kind.num_fields) for inner in types_within(kind.field(n).type))]


def test_tables_in_memory_have_no_column_that_ends_at_2_gib(dataset):
    table = read_index(Place.of(dataset[0]))
    made = {
        "read": table,
        "of a split": select_split(table, "val"),
        "captioned": select_captioned(table, None),
        "captioned by a source": select_captioned(table, {"human": 1.0}),
        "sorted": table.sort_by([("shard", "descending")]).combine_chunks(),
        "taken": table.take(pa.array([4, 1])),
        "joined": pa.concat_tables([table, table]).combine_chunks(),
    }
    for name, one in made.items():
        kinds = [inner for column in one.schema for inner in types_within(column.type)]
        assert not {kind for kind in kinds if kind.id in (pa.string().id, pa.binary().id, pa.list_(pa.null()).id)}, name
        assert one.schema.equals(MEMORY_SCHEMA), name
    assert [column.num_chunks for column in table.columns] == [1] * len(INDEX_SCHEMA)


def test_an_index_without_a_clip_is_an_empty_table(tmp_path):
    write_index(Place.of(tmp_path), [], {})
    assert read_index(Place.of(tmp_path)).schema.equals(MEMORY_SCHEMA)
    assert len(read_index(Place.of(tmp_path), columns=["split"])) == 0


def rows_of(num_rows: int, **columns: pa.Array) -> pa.Table:
    """Rows of an index that are null but for these columns."""
    return pa.table([columns.get(field.name, pa.nulls(num_rows, field.type)) for field in INDEX_SCHEMA], INDEX_SCHEMA)


def test_an_index_that_is_read_in_several_pieces_is_whole_and_in_order(tmp_path):
    count = 150_000
    some = [[], [{"text": "one", "source": "human"}], [{"text": "two", "source": "human"}] * 2]
    whole = rows_of(
        count,
        shard=pa.array(np.full(count, "clips-000000.tar")),
        offset=pa.array(np.arange(count)),
        captions=pa.array(some, CAPTIONS_TYPE).take(pa.array(np.arange(count) % 3)),
    )
    write_index(Place.of(tmp_path), [whole.slice(start, 30_000) for start in range(0, count, 30_000)], {})
    table = read_index(Place.of(tmp_path), columns=["captions", "offset", "shard"])
    assert table.replace_schema_metadata(None).equals(whole.select(table.column_names).cast(table.schema))


@pytest.mark.slow
def test_rows_are_taken_of_more_hashes_than_2_gib_hold(tmp_path):
    size, pieces = 1_000_000, 34  # 2.2 GB of hashes in hexadecimal; some 6 GB of memory
    hashes = [f"{number:064x}" for number in range(pieces)]
    noise = pa.array(np.random.default_rng(0).integers(0, 1 << 16, size))  # or the file is too small for its rows
    write_index(
        Place.of(tmp_path),
        (rows_of(size, sha256=pa.array([one]).take(pa.array(np.zeros(size, int))), offset=noise) for one in hashes),
        {},
    )
    rows = np.linspace(0, pieces * size - 1, 32).round().astype(int)
    table = read_index(Place.of(tmp_path), columns=["sha256"]).combine_chunks()
    assert table.take(pa.array(rows))["sha256"].to_pylist() == [hashes[row // size] for row in rows]


def test_every_clip_is_fetched_by_its_byte_range(dataset):
    directory, rows = dataset
    for number, row in enumerate(rows.to_pylist()):
        data = read_clip_bytes(Place.of(directory), row["shard"], row["offset"], row["num_bytes"], sha256=row["sha256"])
        assert data == fake_clip(number)[1]


def test_changed_bytes_and_short_reads_are_named(dataset, tmp_path):
    directory, rows = dataset
    row = rows.to_pylist()[2]
    place = (row["shard"], row["offset"], row["num_bytes"])
    data = bytearray((tmp_path / row["shard"]).read_bytes())
    data[row["offset"]] ^= 1
    (tmp_path / row["shard"]).write_bytes(data)
    with pytest.raises(ShardError, match=r"clips-000000.tar has other bytes .*\(sha256 differs"):
        read_clip_bytes(Place.of(directory), *place, sha256=row["sha256"])
    (tmp_path / row["shard"]).write_bytes(data[: row["offset"] + 5])
    with pytest.raises(ShardError, match=rf"clips-000000.tar is truncated: got 5 of {row['num_bytes']}"):
        read_clip_bytes(Place.of(directory), *place, sha256=row["sha256"])


def test_select_split_keeps_the_order_and_may_find_nothing(dataset):
    table = read_index(Place.of(dataset[0]))
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
        read_index(Place.of(tmp_path))


def test_a_missing_index_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"no index of clips.*jobs/prepare\.py"):
        read_index(Place.of(tmp_path))


def test_parquet_of_another_schema_is_refused_and_its_gaps_named(tmp_path):
    pq.write_table(pa.table({"clip_id": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(UserError, match=r"not an index of clips.*captions"):
        read_index(Place.of(tmp_path))


def test_an_index_of_another_version_is_refused(tmp_path):
    schema = INDEX_SCHEMA.with_metadata({b"mama_ray.version": b"99"})
    pq.write_table(schema.empty_table(), tmp_path / "index.parquet")
    with pytest.raises(UserError, match="another version: got 99"):
        read_index(Place.of(tmp_path))


def test_an_unsorted_index_is_refused(dataset):
    directory, rows = dataset
    path = Path(directory, "index.parquet")
    before = path.read_bytes()
    for tables in ([rows.slice(2), rows.slice(0, 2)], [pa.concat_tables([rows.slice(2), rows.slice(0, 2)])]):
        with pytest.raises(ValueError, match="not in the order of shard and offset"):
            write_index(Place.of(directory), tables, {})
    assert path.read_bytes() == before
    written = pq.read_table(path)
    pq.write_table(pa.concat_tables([written.slice(2), written.slice(0, 2)]), path)
    with pytest.raises(UserError, match="not sorted"):
        read_index(Place.of(directory))


def test_an_error_while_writing_keeps_the_old_index(dataset, tmp_path):
    directory, rows = dataset

    def tables():
        yield rows
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_index(Place.of(directory), tables(), {})
    assert read_index(Place.of(directory)).num_rows == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_questions_and_truth_are_stored_as_json(tmp_path):
    rows = write_dataset(tmp_path, [1])
    assert rows["truth"].to_pylist() == [None]
    assert json.loads(rows["questions"].to_pylist()[0] or "[]") == []
