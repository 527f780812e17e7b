"""Clips are read by merged byte ranges and are what reading one by one gives; damage costs no clip but its own."""

import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mama_ray.data.index import INDEX_SCHEMA, index_row, read_index, write_index
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.data.reading import (
    MAX_REQUEST_BYTES,
    merge_neighbours,
    read_clip_bytes,
    read_payloads,
)
from mama_ray.data.shard import ShardError, write_shard
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from tests.data.counted_storage import Storage
from tests.data.shard_factory import FACTS, fake_clip, write_dataset
from tests.storage.s3_faults import Refusing, serving

SIZES = [7, 5, 9]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_dataset(folder, SIZES, ("train", "val"))
    return folder


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path, SIZES, ("train", "val"))
    return tmp_path


def records_of(folder) -> list[dict]:
    return read_index(Place.of(folder)).to_pylist()


def place_on(storage: Storage, folder) -> Place:
    return Place(pafs.PyFileSystem(storage), str(folder), str(folder))


def errors_of(payloads) -> dict[int, str]:
    return {position: str(one) for position, one in enumerate(payloads) if isinstance(one, Exception)}


def test_every_clip_comes_in_the_order_asked_for_with_its_bytes(whole):
    records = records_of(whole)
    assert read_payloads(Place.of(whole), records) == [fake_clip(number)[1] for number in range(21)]
    assert read_payloads(Place.of(whole), records[::-1]) == [fake_clip(number)[1] for number in reversed(range(21))]
    assert read_payloads(Place.of(whole), []) == []


@given(st.lists(st.integers(0, 20), max_size=40))
@settings(deadline=None, max_examples=60)
def test_any_clips_are_what_reading_one_by_one_gives(whole, numbers):
    records = records_of(whole)
    merged = read_payloads(Place.of(whole), [records[number] for number in numbers])
    assert merged == [fake_clip(number)[1] for number in numbers]


def test_neighbours_of_a_shard_are_one_request_and_a_shard_is_opened_once(whole):
    storage = Storage()
    read_payloads(place_on(storage, whole), records_of(whole))
    assert storage.asked == {"open": 3, "read": 3}
    spread = [record for number, record in enumerate(records_of(whole)) if number in (0, 8, 20)]
    storage.asked.clear()
    read_payloads(place_on(storage, whole), spread)
    assert storage.asked == {"open": 3, "read": 3}


def test_a_gap_or_a_size_beyond_the_limits_makes_another_request():
    def clip(offset: int, num_bytes: int, shard: str = "a") -> dict:
        return {"shard": shard, "offset": offset, "num_bytes": num_bytes}

    near, far = clip(2_000, 1_000), clip(3_000 + (64 << 10) + 1, 1_000)
    assert list(merge_neighbours([far, clip(0, 1_000), near])) == [[1, 2], [0]]
    half = MAX_REQUEST_BYTES // 2
    assert list(merge_neighbours([clip(0, half), clip(half, half), clip(2 * half, 1)])) == [[0, 1], [2]]
    assert list(merge_neighbours([clip(0, 3 * half), clip(3 * half, 1)])) == [[0], [1]]
    assert list(merge_neighbours([clip(0, 9), clip(0, 9, "b"), clip(0, 9)])) == [[0, 2], [1]]


def test_a_plans_runs_are_one_request_each(tmp_path):
    write_dataset(tmp_path, [32] * 4)
    records, storage = records_of(tmp_path), Storage()
    rows, _ = EpochPlan([32] * 4, PlanConfig(run_length=8)).global_batch(0, 32)
    read_payloads(place_on(storage, tmp_path), [records[row] for row in rows])
    assert storage.asked["read"] <= 4
    assert sorted(position for run in merge_neighbours([records[row] for row in rows]) for position in run) == [
        *range(32)
    ]


def test_one_changed_byte_costs_one_clip(dataset):
    records = records_of(dataset)
    shard = dataset / records[3]["shard"]
    data = bytearray(shard.read_bytes())
    data[records[3]["offset"]] ^= 255
    shard.write_bytes(data)
    payloads = read_payloads(Place.of(dataset), records)
    assert errors_of(payloads).keys() == {3}
    assert isinstance(payloads[3], ShardError) and "sha256 differs" in str(payloads[3])
    assert payloads[4] == fake_clip(4)[1]


@pytest.mark.parametrize(
    "transfer",
    [lambda data: data[: len(data) // 2], lambda data: bytes(byte ^ 1 for byte in data)],
    ids=["lost", "changed"],
)
def test_bytes_that_were_lost_or_changed_on_their_way_are_read_again(dataset, transfer):
    class Lossy(Storage):
        """Gives other bytes than lie there, the first time that a file is opened, and no error."""

        def open_input_file(self, path):
            self.asked[path] += 1
            data = Path(path).read_bytes()
            return pa.BufferReader(transfer(data) if self.asked[path] == 1 else data)

    records = records_of(dataset)
    assert read_payloads(place_on(Lossy(), dataset), records) == [fake_clip(number)[1] for number in range(21)]


@pytest.mark.parametrize("asked_alone", [False, True])
def test_a_truncated_shard_costs_the_clips_behind_the_cut(dataset, asked_alone):
    records = records_of(dataset)
    shard = dataset / records[9]["shard"]
    shard.write_bytes(shard.read_bytes()[: records[9]["offset"] + 1])
    if asked_alone:
        payloads = [read_payloads(Place.of(dataset), [record])[0] for record in records]
    else:
        payloads = read_payloads(Place.of(dataset), records)
    assert errors_of(payloads).keys() == {9, 10, 11}
    assert all("clips-000001.tar is truncated" in text for text in errors_of(payloads).values())
    assert all(isinstance(payloads[number], ShardError) for number in (9, 10, 11))


def test_behind_the_end_of_a_truncated_shard_is_a_fact_about_it_on_s3_too(dataset, s3_bucket):
    records = records_of(dataset)
    shard = dataset / records[9]["shard"]
    shard.write_bytes(shard.read_bytes()[: records[9]["offset"] - 600])
    pafs.copy_files(str(dataset), f"{s3_bucket}/cut", destination_filesystem=Place.of(f"s3://{s3_bucket}").filesystem)
    payloads = read_payloads(Place.of(f"s3://{s3_bucket}/cut"), records)
    assert {number for number, one in enumerate(payloads) if isinstance(one, ShardError)} == {9, 10, 11}
    assert payloads[8] == fake_clip(8)[1] and payloads[12] == fake_clip(12)[1]


def test_a_missing_shard_is_no_fact_about_its_clips_and_is_named_with_the_remedy(dataset):
    (dataset / "clips-000000.tar").unlink()
    with pytest.raises(UserError, match=r"missing: got .*clips-000000.tar.*put it back") as refused:
        read_payloads(Place.of(dataset), records_of(dataset))
    assert "start again with the same arguments" in str(refused.value)
    with pytest.raises(UserError, match="clips-000000.tar"):
        read_clip_bytes(Place.of(dataset), "clips-000000.tar", 0, 1)


def test_an_outage_is_told_once_and_nobody_waits_for_it_again(tmp_path, monkeypatch):
    """Eight requests at a time find out; those behind them do not ask again what has failed for good."""
    write_dataset(tmp_path, [1] * 64)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    storage = Storage(lambda kind, path, start: kind == "read")
    with pytest.raises(UserError, match="the storage failed: got .*SLOW_DOWN"):
        read_payloads(place_on(storage, tmp_path), records_of(tmp_path))
    assert storage.asked["read"] <= 2 * 8 * 4


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [(403, "ExpiredToken", "AWS_PROFILE"), (403, "AccessDenied", "AWS_PROFILE"), (404, "NoSuchKey", "missing")],
)
def test_what_s3_refuses_is_told_with_its_remedy(dataset, s3_server, s3_bucket, monkeypatch, status, code, told):
    pafs.copy_files(str(dataset), f"{s3_bucket}/x", destination_filesystem=Place.of(f"s3://{s3_bucket}").filesystem)
    monkeypatch.setattr("mama_ray.storage.retries.time.sleep", lambda seconds: None)
    with serving(Refusing(s3_server["AWS_ENDPOINT_URL"])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        records = records_of(f"s3://{s3_bucket}/x")
        proxy.refuse_from(status, code)
        with pytest.raises(UserError, match=told) as refused:
            read_payloads(Place.of(f"s3://{s3_bucket}/x"), records)
    assert f"s3://{s3_bucket}/x/clips-00000" in str(refused.value)


def test_a_storage_that_fails_for_a_moment_is_asked_again(dataset, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    turns = Counter()

    def every_second(kind: str, path: str, start: int) -> bool:
        turns[kind, path] += 1
        return turns[kind, path] % 2 == 1

    payloads = read_payloads(place_on(Storage(every_second), dataset), records_of(dataset))
    assert payloads == [fake_clip(number)[1] for number in range(21)]


def test_large_clips_are_a_request_each(tmp_path):
    clips = [fake_clip(number)[0] for number in range(24)]
    places = write_shard(tmp_path / "clips-000000.tar", ((clip, bytes(4 << 20), "mp4") for clip in clips))
    rows = [index_row(clip, place, "clips-000000.tar", FACTS) for clip, place in zip(clips, places, strict=True)]
    shards = {"clips-000000.tar": {"num_bytes": 0, "num_clips": 24}}
    write_index(Place.of(tmp_path), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], shards)
    # Two would pass 8 MiB with what lies between them.
    assert list(merge_neighbours(records_of(tmp_path))) == [[number] for number in range(24)]
    payloads = read_payloads(Place.of(tmp_path), records_of(tmp_path))
    assert [len(payload) for payload in payloads] == [4 << 20] * 24


def test_many_readers_of_one_python_file_get_their_own_bytes(tmp_path):
    write_dataset(tmp_path, [60])
    records = [record for record in records_of(tmp_path) if int(record["clip_id"][-1]) % 2]
    far_apart = Place.of(f"local://{tmp_path}")
    for _ in range(20):
        payloads = [read_payloads(far_apart, [records[number], records[number - 1]])[0] for number in range(1, 10)]
        assert payloads == [fake_clip(2 * number + 1)[1] for number in range(1, 10)]


def test_shards_are_opened_beside_each_other(tmp_path):
    write_dataset(tmp_path, [1] * 8)
    all_are_open = threading.Barrier(8)

    def wait(kind: str, path: str, start: int) -> bool:
        if kind == "open":
            all_are_open.wait(timeout=60)
        return False

    payloads = read_payloads(place_on(Storage(wait), tmp_path), records_of(tmp_path))
    assert payloads == [fake_clip(number)[1] for number in range(8)]
