"""One copy of a remote folder on a machine, for all processes there that use it at the time.

A copy lies beside a file that its users have locked. The system gives locks back however a process ends, so a copy
without a lock is one that nobody uses: it is removed by its last user, or, where that was killed, by the next process
that wants a copy of anything.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs

from mama_ray.errors import UserError
from mama_ray.storage.places import Place

_LOCK = ".lock"
_MAKING = ".making"
_PARTIAL = ".partial"


@contextlib.contextmanager
def node_copy(place: Place) -> Iterator[Path]:
    """Give a local folder with the content of this one: itself if it is local, else this machine's copy of it."""
    if place.is_local:
        yield Path(place.path)
        return
    home = _home()
    _remove_unused(home)
    folder = home / _name_of(place)
    lock = _shared_lock(folder)
    try:
        with _one_at_a_time(folder):  # the others wait for it
            if not folder.exists():
                _make(place, folder)
        yield folder
    finally:
        _remove_if_unused(lock, folder)


def _home() -> Path:
    home = Path(tempfile.gettempdir()) / f"mama_ray-models-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise UserError("another user's folder stands where copies of models go", got=home, remedy="set TMPDIR")
    return home


def _name_of(place: Place) -> str:
    """Return what names a copy: the folder as it is now, so that a changed one is another."""
    files = [f"{info.path} {info.size} {info.mtime_ns}" for info in place.entries(recursive=True) if info.is_file]
    return hashlib.sha256("\n".join([place.uri, *files]).encode()).hexdigest()[:32]


def _shared_lock(folder: Path) -> int:
    """Return an open lock, shared with the other users of a copy, which may have to be made yet."""
    while True:
        lock = os.open(f"{folder}{_LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_current(lock, folder):
            return lock
        os.close(lock)  # another process removed the copy in between


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with open(f"{folder}{_MAKING}", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(place: Place, folder: Path) -> None:
    partial = Path(f"{folder}{_PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        disk = pafs.LocalFileSystem()
        pafs.copy_files(place.path, str(partial), source_filesystem=place.filesystem, destination_filesystem=disk)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _remove_unused(home: Path) -> None:
    for path in home.glob(f"*{_LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            _remove_if_unused(os.open(path, os.O_RDWR), path.with_suffix(""))


def _remove_if_unused(lock: int, folder: Path) -> None:
    """Remove a copy and its lock, unless others have it; the lock is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_current(lock, folder):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(f"{folder}{_PARTIAL}", ignore_errors=True)
            Path(f"{folder}{_MAKING}").unlink(missing_ok=True)
            os.unlink(f"{folder}{_LOCK}")
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def _is_current(lock: int, folder: Path) -> bool:
    """Tell whether an open lock is still the one that lies beside the copy."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(f"{folder}{_LOCK}"))
    except FileNotFoundError:
        return False
