"""What lies in a folder of videos or shards: files with any name, those that are no UTF-8 included."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import pyarrow.fs as pafs

from mama_ray.storage.places import Place


@dataclass(frozen=True)
class ListedFile:
    """A file as it is now; bytes of its name that are no UTF-8 are lone surrogates."""

    name: str
    """Path relative to the folder."""
    num_bytes: int
    modified_ns: int | None


def list_files(folder: Place) -> list[ListedFile]:
    """Return all files below a folder, sorted. Raises FileNotFoundError or NotADirectoryError where it is none."""
    if folder.is_local:  # Arrow's listing fails where a single name is no UTF-8
        return sorted(_local_files(folder.path), key=attrgetter("name"))
    start = len(folder.path.strip("/")) + 1
    infos = folder.filesystem.get_file_info(pafs.FileSelector(folder.path, recursive=True))
    files = (ListedFile(info.path.strip("/")[start:], info.size, info.mtime_ns) for info in infos if info.is_file)
    return sorted(files, key=attrgetter("name"))


def names_in(folder: Place) -> list[str]:
    """Return the names of all that lies directly in a folder; raises as `list_files` does."""
    if folder.is_local:
        return sorted(os.listdir(folder.path))
    return sorted(info.base_name for info in folder.filesystem.get_file_info(pafs.FileSelector(folder.path)))


def has_names(folder: Place) -> bool:
    """Tell whether anything lies in a folder; raises as `list_files` does."""
    if not folder.is_local:
        return bool(names_in(folder))
    with os.scandir(folder.path) as entries:
        return next(entries, None) is not None


def _local_files(path: str) -> Iterator[ListedFile]:
    for directory, _, names in os.walk(path, onerror=_fail, followlinks=True):
        for name in names:
            full = os.path.join(directory, name)
            try:
                facts = os.stat(full)
            except FileNotFoundError:  # a link that leads nowhere
                continue
            if stat.S_ISREG(facts.st_mode):
                yield ListedFile(os.path.relpath(full, path), facts.st_size, facts.st_mtime_ns)


def _fail(error: OSError) -> None:
    raise error
