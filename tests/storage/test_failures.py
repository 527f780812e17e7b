"""A disk that is full, read-only or gone is told as such, whichever library wrote there, and nothing half is left."""

import contextlib
import copy
import errno
import os
import random
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ray.exceptions import OutOfDiskError

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.models.weight_files import write_safetensors
from mama_ray.storage import failures
from mama_ray.storage.failures import as_storage_error, number_in, storage_error_in, told_of_storage
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.places import Place, storage_errors, whole_file
from mama_ray.storage.retries import with_retries
from mama_ray.training.checkpoint import CapturedOptimizer, write_optimizer
from tests.storage.small_disks import file_size_limit, remount

ROOM = 128 << 10
NOISE = np.random.default_rng(0).random(200_000)  # 1.6 MB that no codec makes smaller


def write_parquet(path: Path) -> None:
    Place.of(path).write_whole(lambda stream: pq.write_table(pa.table({"noise": NOISE}), stream))


def write_array(path: Path) -> None:
    with whole_file(path) as part, part.open("wb") as file:
        np.save(file, NOISE)


def write_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE noise (bytes)")
        database.execute("INSERT INTO noise VALUES (?)", (NOISE.tobytes(),))


WORDS = ["".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz ", k=80)) for number in range(600)]
WRITERS = {
    "bytes": lambda path: Place.of(path).write_whole(NOISE.tobytes()),
    "parquet": write_parquet,
    "numpy": write_array,
    "safetensors": lambda path: write_safetensors({"noise": torch.from_numpy(NOISE)}, path),
    "torch": lambda path: write_optimizer(CapturedOptimizer({"noise": torch.from_numpy(NOISE)}), path),
    "tokenizer": lambda path: Tokenizer.train(WORDS, 4096, 24).save(path.parent),
    "sqlite": write_database,
}
WHOLE_OR_NOT = ("bytes", "parquet", "numpy", "safetensors")


@pytest.fixture(params=["full disk", "file size limit"])
def without_room(request, tmp_path):
    """A folder and a context in which no file of 1.6 MB can be written there."""
    if request.param == "full disk":
        return request.getfixturevalue("small_disk")(f"{ROOM}"), contextlib.nullcontext
    return tmp_path, lambda: file_size_limit(ROOM)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_as_one_whichever_library_wrote(writer, without_room):
    folder, limit = without_room
    (folder / "file").write_text("old")
    target = folder / ("new" if writer == "sqlite" else "file")
    with pytest.raises(UserError) as told, storage_errors(str(folder)), limit():
        WRITERS[writer](target)
    # SQLite tells no more of a file that may not grow than that it could not write.
    is_vague = writer == "sqlite" and limit is not contextlib.nullcontext
    what = "the storage failed" if is_vague else "no space left on the storage"
    assert str(told.value).startswith(f"{what}: got {folder}: "), told.value
    assert "then start again with the same arguments" in str(told.value)
    if writer in WHOLE_OR_NOT:
        assert {path.name: path.read_text() for path in folder.iterdir()} == {"file": "old"}


def test_a_disk_that_becomes_read_only_is_told_as_one(small_disk):
    disk = small_disk("1m")
    (disk / "file").write_text("old")
    remount(disk, "ro")
    for writer in ("bytes", "safetensors", "torch"):
        with pytest.raises(UserError, match="the storage is read-only: got ") as told, storage_errors(str(disk)):
            WRITERS[writer](disk / "file")
        assert "mount it for writing, then start again" in str(told.value)
    assert (disk / "file").read_text() == "old"


def test_a_disk_that_is_full_or_read_only_is_told_before_any_work(small_disk):
    disk = small_disk("64k")
    with contextlib.suppress(OSError), (disk / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(UserError, match=f"no space left on the storage: got {disk}/run: "):
        ensure_writable(f"{disk}/run")
    remount(disk, "ro")
    with pytest.raises(UserError, match=f"the storage is read-only: got {disk}/run: "):
        ensure_writable(f"{disk}/run")
    assert list(disk.rglob("*.tmp")) == []


def test_a_full_folder_for_temporary_files_is_named_and_not_the_output(small_disk, monkeypatch, tmp_path):
    scratch = small_disk(f"{ROOM}")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    for output in (str(tmp_path), "s3://bucket/output"):
        with pytest.raises(UserError) as told, storage_errors(output), (scratch / "cut.mp4").open("wb") as file:
            file.write(NOISE.tobytes())
        assert str(told.value).startswith(f"no space left on the storage: got {scratch}: "), told.value
        assert "set TMPDIR to a larger disk" in str(told.value)


def test_what_is_no_failure_of_a_storage_is_left_as_it_is():
    for error in (RuntimeError("shapes differ"), ValueError("No space left on device"), KeyError("disk I/O error")):
        assert as_storage_error(error) is None
        with pytest.raises(type(error)) as raised, storage_errors("/out"):
            raise error
        assert raised.value is error


def test_an_error_without_a_number_gets_it_from_its_words():
    assert number_in("Error writing. Detail: [errno 28] No space left on device") == errno.ENOSPC
    assert number_in("IO error: Read-only file system (os error 30)") == errno.EROFS
    assert number_in("stale NFS: Stale file handle") == errno.ESTALE
    assert number_in("the index is damaged") is None
    found = as_storage_error(OSError("Disk quota exceeded"))
    assert found is not None and found.errno == errno.EDQUOT


def test_a_full_disk_below_rays_object_store_names_the_folder_that_it_spills_to():
    found = as_storage_error(OutOfDiskError("the object cannot be stored"))
    assert found is not None
    told = str(told_of_storage(found, "/out"))
    assert told.startswith(f"no space left on the storage: got {tempfile.gettempdir()}: ")


def test_an_error_of_another_process_is_known_by_its_text():
    found = storage_error_in("OSError", "[Errno 28] No space left on device: '/scratch/rows.sqlite'")
    assert found is not None and (found.errno, found.filename) == (errno.ENOSPC, "/scratch/rows.sqlite")
    told = str(told_of_storage(found, "/out"))
    assert (
        "no space left on the storage: got /out: [Errno 28] No space left on device: '/scratch/rows.sqlite'; " in told
    )
    assert storage_error_in("ValueError", "[Errno 28] No space left on device") is None


def test_of_a_task_that_failed_its_last_line_alone_is_told():
    error = OSError(
        "\x1b[36mray::Write()\x1b[39m (pid=7)\n  File x.py, line 2\nOSError: [Errno 28] No space left on device"
    )
    with pytest.raises(UserError) as told, storage_errors("/out"):
        raise error
    found = str(told.value)
    assert found.startswith("no space left on the storage: got ") and "ray::" not in found and "x.py" not in found


def test_a_full_disk_is_not_waited_for(monkeypatch):
    calls = []

    def write() -> None:
        calls.append(1)
        raise OSError("Error writing. Detail: [errno 28] No space left on device")  # of Arrow, without a number

    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(OSError, match="No space left"):
        with_retries(write)
    assert len(calls) == 1


def test_what_is_told_crosses_processes():
    told = told_of_storage(OSError(errno.EIO, os.strerror(errno.EIO)), "/out")
    assert str(copy.copy(told)) == str(told)  # by the protocol that pickle uses
    assert "the storage failed: got /out: " in str(told)
    assert failures.is_of_the_storage(OSError(errno.ESTALE, "gone"))
    assert not failures.is_of_the_storage(FileNotFoundError(errno.ENOENT, "no such clip"))
