"""Ids that several rows share, found among any number of ids: their hashes go through files on this machine's disk."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from mama_ray.data.range_files import RangeFiles, range_files

WORD = np.dtype("<u8")
NUM_RANGES = 64  # of 12.5 MB each for 100 million ids
_HELD = 1 << 20  # hashes that are held before they are written


class HashedIds:
    """Takes ids in; `repeated` tells the hashes of those that came more than once, and perhaps of a few others."""

    def __init__(self, files: RangeFiles) -> None:
        self._files, self._held, self._num_held, self._has_files = files, [], 0, False

    def add(self, ids: Iterable[str]) -> None:
        """Take ids in."""
        self.add_hashes(hashes_of_ids(ids))

    def add_hashes(self, hashes: np.ndarray) -> None:
        """Take in ids that were hashed elsewhere."""
        self._held.append(hashes)
        self._num_held += len(hashes)
        if self._num_held >= _HELD:
            self._write()

    def repeated(self) -> set[int]:
        """Return the hashes that came more than once: all whose ids did are among them."""
        return set(self.frequent(1).tolist())

    def frequent(self, limit: int) -> np.ndarray:
        """Return the hashes, uint64 and ascending, that came more than `limit` times."""
        if not self._has_files:
            return _frequent(np.concatenate([np.empty(0, WORD), *self._held]), limit)
        self._write()
        return np.concatenate([_frequent(self._files.read(number), limit) for number in range(NUM_RANGES)])

    def _write(self) -> None:
        hashes = np.concatenate([np.empty(0, WORD), *self._held])
        self._held, self._num_held, self._has_files = [], 0, True
        self._files.add(range_of_hash(hashes), hashes)


@contextmanager
def hashed_ids() -> Iterator[HashedIds]:
    """Yield what takes ids in; its files, eight bytes for each of more than a million ids, go when the block ends."""
    with range_files(WORD) as files:
        yield HashedIds(files)


def hash_of_id(name: str) -> int:
    """Return 64 bits of an id."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def hashes_of_ids(ids: Iterable[str]) -> np.ndarray:
    """Return 64 bits of each id, uint64 (ids,)."""
    return np.fromiter(map(hash_of_id, ids), WORD)


def range_of_hash(hashes: np.ndarray) -> np.ndarray:
    """Return which of NUM_RANGES ranges each hash is in, int64; the ranges ascend as the hashes do."""
    return (hashes >> np.uint64(58)).astype(np.int64)


def _frequent(hashes: np.ndarray, limit: int) -> np.ndarray:
    values, counts = np.unique(hashes, return_counts=True)
    return values[counts > limit]
