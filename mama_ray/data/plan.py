"""The order of the clips: a pure function of the seed, the epoch and the sizes of the shards.

The stream is endless, epoch 0, then epoch 1, and so on; a training step is an interval of it, so a data cursor is one
number, a batch may straddle two epochs, and the content of a batch does not depend on the number of workers. Shards
are shuffled, and clips within windows of a few shards, so that a reader has few shards open and may fetch runs of
neighbouring clips at once.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from pydantic import Field

from mama_ray.config import Config

PADDING_ROW = -1  # the row number of what is no clip
# Keys the generator of the shards' order; windows count from 0.
_SHARD_ORDER = 2**32 - 1
_KEPT_WINDOWS = 4


class PlanConfig(Config):
    """How an epoch is shuffled."""

    seed: int = Field(default=0, ge=0)
    """Seed of the order; a new epoch gets a new order from the same seed."""
    window_shards: int = Field(default=16, ge=1)
    """Shards whose clips are mixed with each other. More mixes better and keeps more shards open."""
    run_length: int = Field(default=1, ge=1)
    """Neighbouring clips that stay together, to be fetched with one request. 1 shuffles single clips."""


def local_batch_size(global_batch_size: int, world_size: int, *, num_parts: int = 1) -> int:
    """Return the rows of every worker's batch, padding included: equally many, and a multiple of num_parts."""
    return -(-global_batch_size // (world_size * num_parts)) * num_parts


def local_places(global_batch_size: int, rank: int, world_size: int, *, num_parts: int = 1) -> slice:
    """Return which places of a global batch worker `rank` takes; of the last workers fewer than `local_batch_size`."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: got {rank}, wanted 0 to {world_size - 1}")
    size = local_batch_size(global_batch_size, world_size, num_parts=num_parts)
    return slice(min(rank * size, global_batch_size), min((rank + 1) * size, global_batch_size))


class BatchPlan(Protocol):
    """The order of the rows of training: which rows, in which epoch, a worker takes of a step.

    `num_clips` is how many places an epoch has. A row may be PADDING_ROW, behind all others of its step.
    """

    num_clips: int

    def global_batch(self, step: int, global_batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and epochs of training step `step`, each (global_batch_size,)."""

    def local_batch(
        self, step: int, global_batch_size: int, rank: int, world_size: int, *, num_parts: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and epochs of what worker `rank` takes of a step: a contiguous slice of the global batch."""


class EpochPlan:
    """The endless order of the rows of an index that is sorted by (shard, offset).

    Args:
        num_clips_per_shard: rows of each shard, in the index's order; shards without rows count for nothing.
        config: seed and width of the shuffle.

    A call costs O(shards) plus the windows it touches, whatever the number of clips.
    """

    def __init__(self, num_clips_per_shard: Sequence[int], config: PlanConfig) -> None:
        sizes = np.asarray(num_clips_per_shard, dtype=np.int64).reshape(-1)
        if (sizes < 0).any() or sizes.sum() == 0:
            raise ValueError("an epoch plan needs at least one clip and no negative counts")
        self.config = config
        self.num_clips = int(sizes.sum())
        first_rows = np.cumsum(sizes) - sizes
        self._sizes, self._first_rows = sizes[sizes > 0], first_rows[sizes > 0]
        self._windows: dict[tuple[int, int], np.ndarray] = {}
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the index rows and the epochs, int64, of positions [start, stop) of the endless stream."""
        if not 0 <= start <= stop:
            raise ValueError(f"positions of the plan: got [{start}, {stop}), wanted 0 <= start <= stop")
        pieces = []
        while start < stop:
            epoch, position = divmod(start, self.num_clips)
            piece = self._epoch_rows(epoch, position, min(self.num_clips, position + stop - start))
            pieces.append((piece, np.full(len(piece), epoch, dtype=np.int64)))
            start += len(piece)
        if not pieces:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return np.concatenate([rows for rows, _ in pieces]), np.concatenate([epochs for _, epochs in pieces])

    def global_batch(self, step: int, global_batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and epochs of training step `step`, each (global_batch_size,)."""
        return self.rows(step * global_batch_size, (step + 1) * global_batch_size)

    def local_batch(
        self, step: int, global_batch_size: int, rank: int, world_size: int, *, num_parts: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and epochs of what worker `rank` takes of a step: a contiguous slice of the global batch.

        Each has `local_batch_size` of them, but for the last workers where the sizes do not divide: what they lack, up
        to all, is for padding, which so comes after the whole global batch when the workers' batches are joined.
        """
        places = local_places(global_batch_size, rank, world_size, num_parts=num_parts)
        return self.rows(step * global_batch_size + places.start, step * global_batch_size + places.stop)

    def _epoch_rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Rows of positions [start, stop) of one epoch; only the windows touched are permuted."""
        _, window_ends = self._epoch(epoch)
        first = int(np.searchsorted(window_ends, start, side="right"))
        last = int(np.searchsorted(window_ends, stop, side="left"))
        rows = [self._window(epoch, window) for window in range(first, last + 1)]
        offset = start - (int(window_ends[first - 1]) if first else 0)
        return np.concatenate(rows)[offset : offset + stop - start]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Order of the shards and the position after each window."""
        if epoch not in self._epochs:
            order = shuffled(len(self._sizes), self.config.seed, epoch, _SHARD_ORDER)
            starts = np.arange(0, len(order), self.config.window_shards)
            window_ends = np.cumsum(np.add.reduceat(self._sizes[order], starts))
            self._epochs = _newest(self._epochs, epoch, (order, window_ends))
        return self._epochs[epoch]

    def _window(self, epoch: int, window: int) -> np.ndarray:
        """All rows of one window, in their order: runs of neighbours, shuffled."""
        if (epoch, window) not in self._windows:
            order, _ = self._epoch(epoch)
            shards = order[window * self.config.window_shards :][: self.config.window_shards]
            starts, lengths = self._runs(shards)
            picked = shuffled(len(starts), self.config.seed, epoch, window)
            starts, lengths = starts[picked], lengths[picked]
            within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            self._windows = _newest(self._windows, (epoch, window), np.repeat(starts, lengths) + within)
        return self._windows[epoch, window]

    def _runs(self, shards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First row and length of every run of the given shards; the last run of a shard may be shorter."""
        length = self.config.run_length
        sizes, first_rows = self._sizes[shards], self._first_rows[shards]
        counts = -(-sizes // length)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = np.repeat(first_rows, counts) + number * length
        return starts, np.minimum(length, np.repeat(first_rows + sizes, counts) - starts)


def shuffled(count: int, *key: int) -> np.ndarray:
    """Return a permutation of range(count), that of the key, which is a seed and what it is for.

    Raw Philox words are sorted: NumPy promises their stream, not that of `permutation`.
    """
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(words, kind="stable")


def _newest(kept: dict, key: object, value: object) -> dict:
    """The last few entries of `kept` and the new one: neighbouring steps share their windows."""
    entries = list(kept.items())[-(_KEPT_WINDOWS - 1) :]
    return dict([*entries, (key, value)])
