"""The quick check of shards: every bad one is named, whether it was asked for or came in a listing."""

import threading

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from mama_ray.data import shard_check
from mama_ray.data.index import read_index, write_index
from mama_ray.data.shard_check import check_shards
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset
from tests.data.test_index import rows_of
from tests.storage.s3_faults import serving
from tests.storage.test_places import Counting


@pytest.fixture
def dataset(tmp_path):
    return str(tmp_path), write_dataset(tmp_path, [3, 1, 2], ("train", "val"))


def test_sound_shards_pass_the_check(dataset):
    check_shards(Place.of(dataset[0]), read_index(Place.of(dataset[0])))


def test_the_check_names_every_bad_shard_in_one_error(dataset, tmp_path):
    directory, _ = dataset
    table = read_index(Place.of(directory))
    (tmp_path / "clips-000000.tar").unlink()
    shard = tmp_path / "clips-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    shard = tmp_path / "clips-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-512] + b"x" * 512)
    with pytest.raises(UserError) as raised:
        check_shards(Place.of(directory), table)
    message = str(raised.value)
    assert "clips-000000.tar (missing)" in message
    assert "clips-000001.tar (truncated" in message
    assert "clips-000002.tar (no end of archive)" in message


class Storage(pafs.FSSpecHandler):
    """The local disk with a call before each file is opened."""

    def __init__(self, before_open) -> None:
        super().__init__(fsspec.filesystem("file"))
        self._before_open = before_open

    def open_input_file(self, path):
        self._before_open(path.rsplit("/", 1)[1])
        return super().open_input_file(path)


def test_shards_are_checked_side_by_side(tmp_path):
    write_dataset(tmp_path, [1] * 8)
    all_are_open = threading.Barrier(8)
    storage = pafs.PyFileSystem(Storage(lambda _: all_are_open.wait(timeout=60)))
    check_shards(Place(storage, str(tmp_path), str(tmp_path)), read_index(Place.of(tmp_path)))


def test_of_errors_of_the_storage_that_of_the_first_shard_is_told(tmp_path):
    write_dataset(tmp_path, [1] * 8)
    other_failed = threading.Event()

    def fail(name: str) -> None:
        if name == "clips-000005.tar":
            other_failed.set()
            raise OSError(f"no permission for {name}")
        if name == "clips-000002.tar":
            assert other_failed.wait(timeout=60)
            raise OSError(f"no permission for {name}")

    place = Place(pafs.PyFileSystem(Storage(fail)), str(tmp_path), str(tmp_path))
    with pytest.raises(OSError, match=r"no permission for clips-000002\.tar"):
        check_shards(place, read_index(Place.of(tmp_path)))


def test_more_shards_than_wait_in_the_pool_are_all_checked_and_told_in_order(tmp_path):
    names = [f"clips-{number:06d}.tar" for number in range(4200)]
    rows = rows_of(4200, shard=pa.array(names), offset=pa.array(np.zeros(4200, int)))
    write_index(Place.of(tmp_path), [rows], {name: {"num_bytes": 1024, "num_clips": 1} for name in names})
    for name in names:
        if name not in ("clips-000007.tar", "clips-003000.tar", "clips-004199.tar"):
            (tmp_path / name).write_bytes(bytes(1024))
    (tmp_path / "clips-003000.tar").mkdir()
    wanted = r"clips-000007\.tar \(missing\), clips-003000\.tar \(missing\), clips-004199\.tar \(missing\);"
    with pytest.raises(UserError, match=wanted):
        check_shards(Place.of(tmp_path), read_index(Place.of(tmp_path)))


def test_the_check_looks_only_at_shards_of_the_given_rows(dataset, tmp_path):
    table = read_index(Place.of(dataset[0]))
    (tmp_path / "clips-000000.tar").unlink()
    check_shards(Place.of(dataset[0]), table.slice(3))


def test_of_many_shards_a_listing_gives_the_sizes(s3_server, s3_bucket, tmp_path, monkeypatch):
    write_dataset(tmp_path, [1] * 30)
    (tmp_path / "clips-000004.tar").unlink()
    shard = tmp_path / "clips-000007.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    for path in tmp_path.iterdir():
        Place.of(f"s3://{s3_bucket}/many/{path.name}").write_whole(path.read_bytes())
    monkeypatch.setattr(shard_check, "_MOST_ENDS", 3)
    with serving(Counting(s3_server["AWS_ENDPOINT_URL"])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        folder = Place.of(f"s3://{s3_bucket}/many")
        table = read_index(folder)
        proxy.asked.clear()
        with pytest.raises(UserError, match=r"clips-000004\.tar \(missing\), clips-000007\.tar \(truncated") as raised:
            check_shards(folder, table)
        # A listing, the ends of three, the size of the short one, and twice a look for the missing one.
        assert len(proxy.asked) <= 1 + 2 * 3 + 2 + 3
    assert str(raised.value).count(".tar") == 2


def test_where_nothing_can_be_listed_each_shard_is_asked_for(tmp_path, monkeypatch):
    write_dataset(tmp_path, [1] * 6)
    monkeypatch.setattr(shard_check, "_MOST_ENDS", 2)

    class Unlisted(Storage):
        def get_file_info_selector(self, selector):
            raise OSError("no listing here")

    opened: list[str] = []
    place = Place(pafs.PyFileSystem(Unlisted(opened.append)), str(tmp_path), str(tmp_path))
    monkeypatch.setattr("mama_ray.storage.retries.time.sleep", lambda _: None)
    check_shards(place, read_index(Place.of(tmp_path)))
    assert len(opened) == 6
