"""Ids that several rows share, found among any number of ids: their hashes go through files on this machine's disk."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_WORD = np.dtype("<u8")
_NUM_FILES = 64  # of 12.5 MB each for 100 million ids
_HELD = 1 << 20  # hashes that are held before they are written


class HashedIds:
    """Takes ids in; `repeated` tells the hashes of those that came more than once, and perhaps of a few others."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._held, self._num_held = folder, [], 0

    def add(self, ids: Iterable[str]) -> None:
        """Take ids in."""
        hashes = np.fromiter(map(hash_of_id, ids), _WORD)
        self._held.append(hashes)
        self._num_held += len(hashes)
        if self._num_held >= _HELD:
            self._write()

    def repeated(self) -> set[int]:
        """Return the hashes that came more than once: all whose ids did are among them."""
        if not any(self._folder.iterdir()):
            return _repeated(np.concatenate([np.empty(0, _WORD), *self._held]))
        self._write()
        found: set[int] = set()
        for path in self._folder.iterdir():
            found |= _repeated(np.fromfile(path, _WORD))
        return found

    def _write(self) -> None:
        hashes = np.concatenate([np.empty(0, _WORD), *self._held])
        self._held, self._num_held = [], 0
        files = (hashes >> np.uint64(58)).astype(np.int64)
        for number in range(_NUM_FILES):
            with (self._folder / f"{number:02d}").open("ab") as file:
                file.write(hashes[files == number].tobytes())


@contextmanager
def hashed_ids() -> Iterator[HashedIds]:
    """Yield what takes ids in; its files, eight bytes for each of more than a million ids, go when the block ends."""
    with tempfile.TemporaryDirectory(prefix="mama_ray-ids-") as folder:
        yield HashedIds(Path(folder))


def hash_of_id(name: str) -> int:
    """Return 64 bits of an id."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _repeated(hashes: np.ndarray) -> set[int]:
    hashes.sort()
    return set(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]).tolist())
