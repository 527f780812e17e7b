"""The clip datasource: every row of the index once, in order, in bounded blocks; damage is a row with its error."""

import tracemalloc

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from mama_ray.data.index import INDEX_SCHEMA, index_row, read_index, write_index
from mama_ray.data.shard import write_shard
from mama_ray.errors import UserError
from mama_ray.orchestration.datasource import CLIP_SCHEMA, read_blocks, read_clips
from mama_ray.storage.places import Place
from tests.data.shard_factory import FACTS, fake_clip, write_dataset


def numbered_index(directory) -> pa.Table:
    table = read_index(Place.of(directory))
    return table.append_column("row", pa.array(range(len(table))))


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path, [7, 5, 9], ("train", "val"))
    return tmp_path


def read(directory, **options) -> list[dict]:
    return [
        row
        for block in read_blocks(Place.of(directory), numbered_index(directory), **options)
        for row in block.to_pylist()
    ]


def test_every_clip_comes_once_in_order_with_its_bytes(dataset):
    rows = read(dataset)
    assert [row["clip_id"] for row in rows] == [f"clip-{number:04d}" for number in range(21)]
    assert [row["video"] for row in rows] == [fake_clip(number)[1] for number in range(21)]
    assert all(row["error"] is None and row["extension"] == "mp4" for row in rows)


def test_blocks_keep_to_their_size(dataset):
    blocks = list(read_blocks(Place.of(dataset), numbered_index(dataset), max_block_bytes=5000))
    assert all(block.schema.equals(CLIP_SCHEMA) for block in blocks)
    sizes = [sum(len(video) for video in block["video"].to_pylist()) for block in blocks]
    assert max(sizes) <= 5000
    assert len(blocks) > 4


def test_a_clip_larger_than_a_block_is_a_block_of_its_own(dataset):
    blocks = list(read_blocks(Place.of(dataset), numbered_index(dataset), max_block_bytes=10))
    assert [len(block) for block in blocks] == [1] * 21


def test_one_changed_byte_costs_one_clip(dataset):
    row = numbered_index(dataset).to_pylist()[3]
    shard = dataset / row["shard"]
    data = bytearray(shard.read_bytes())
    data[row["offset"]] ^= 255
    shard.write_bytes(data)
    rows = read(dataset)
    assert [row["row"] for row in rows if row["error"]] == [3]
    assert "sha256 differs" in rows[3]["error"]
    assert rows[3]["video"] is None
    assert rows[4]["video"] == fake_clip(4)[1]


def test_a_truncated_shard_costs_the_clips_behind_the_cut(dataset):
    row = numbered_index(dataset).to_pylist()[9]
    shard = dataset / row["shard"]
    shard.write_bytes(shard.read_bytes()[: row["offset"] + 1])
    rows = read(dataset)
    assert [row["row"] for row in rows if row["error"]] == [9, 10, 11]
    assert all("clips-000001.tar is truncated" in row["error"] for row in rows if row["error"])


def test_a_missing_shard_costs_its_clips(dataset):
    (dataset / "clips-000000.tar").unlink()
    rows = read(dataset)
    assert [row["error"] for row in rows[:7]] == ["shard clips-000000.tar is missing"] * 7
    assert all(row["error"] is None for row in rows[7:])


def test_a_storage_that_fails_for_a_moment_is_read_again(dataset, monkeypatch):
    class Flaky:
        """A filesystem whose every second opening fails as a busy object store does."""

        num_opened = 0

        def open_input_file(self, path):
            self.num_opened += 1
            if self.num_opened % 2:
                raise OSError("When reading: AWS Error SLOW_DOWN")
            return pafs.LocalFileSystem().open_input_file(path)

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    blocks = read_blocks(Place(Flaky(), str(dataset), str(dataset)), numbered_index(dataset))
    assert all(error is None for block in blocks for error in block["error"].to_pylist())


def test_reading_keeps_one_block_in_memory(tmp_path):
    clips = [fake_clip(number)[0] for number in range(24)]
    places = write_shard(tmp_path / "clips-000000.tar", ((clip, bytes(4 << 20), "mp4") for clip in clips))
    rows = [index_row(clip, place, "clips-000000.tar", FACTS) for clip, place in zip(clips, places, strict=True)]
    shards = {"clips-000000.tar": {"num_bytes": 0, "num_clips": 24}}
    write_index(Place.of(tmp_path), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], shards)
    index = numbered_index(tmp_path)
    pool_before = pa.total_allocated_bytes()
    tracemalloc.start()
    peak_pool = 0
    for block in read_blocks(Place.of(tmp_path), index, max_block_bytes=8 << 20):
        peak_pool = max(peak_pool, pa.total_allocated_bytes() - pool_before)
        del block
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + peak_pool < 48 << 20  # of 96 MiB


@pytest.mark.ray
def test_ray_reads_a_split_in_order(dataset, ray_cluster):
    table = read_clips(str(dataset), split="val", max_block_bytes=4000, override_num_blocks=3)
    rows = sorted(table.take_all(), key=lambda row: row["row"])
    assert [row["row"] for row in rows] == list(range(1, 21, 2))
    assert [row["video"] for row in rows] == [fake_clip(number)[1] for number in range(1, 21, 2)]
    assert rows[0]["captions"][0]["text"] == "text 1"


@pytest.mark.ray
def test_ray_reads_an_empty_split_as_no_rows(dataset, ray_cluster):
    assert read_clips(str(dataset), split="test").count() == 0


@pytest.mark.ray
def test_a_missing_index_is_a_user_error(tmp_path, ray_cluster):
    with pytest.raises(UserError, match="no index of clips"):
        read_clips(str(tmp_path))
