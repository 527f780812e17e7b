"""Disks without room: a small filesystem of its own where this user may mount one, and a file size limit anywhere."""

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def mount(folder: Path, size: str) -> bool:
    """Mount a filesystem in memory at a folder; False where that is not allowed here."""
    folder.mkdir()
    return _succeeds("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))


def remount(folder: Path, options: str) -> None:
    """Give a mounted one more room (`size=1g`), or take writing away (`ro`)."""
    assert _succeeds("mount", "-o", f"remount,{options}", str(folder))


def unmount(folder: Path) -> None:
    """Take it away, whoever is using it."""
    _succeeds("umount", "-l", str(folder))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Give a folder on a filesystem of a size; skips where no filesystem may be mounted."""
    disks: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk-{len(disks)}"
        if not mount(folder, size):
            pytest.skip("no right to mount a small filesystem")
        disks.append(folder)
        return folder

    yield make
    for disk in disks:
        unmount(disk)


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: the nearest to a full disk that every user can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
