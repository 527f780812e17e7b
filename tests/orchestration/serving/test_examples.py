"""Uploaded clips as examples: what is kept of them, and how many are read at a time."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from mama_ray.orchestration.serving.examples import Examples
from mama_ray.orchestration.serving.uploads import NoRoom


class SlowTowers:
    """Gives every video the same feature, after a while, and counts how many it reads at a time."""

    model_hash = "0" * 64

    def __init__(self) -> None:
        self.num_read, self.most_at_once, self._now, self._lock = 0, 0, 0, threading.Lock()

    def embed_video(self, path: Path) -> np.ndarray:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1
            self.num_read += 1
        return np.ones(4, np.float32)


async def sent(content: bytes) -> AsyncIterator[bytes]:
    yield content


def test_few_are_read_at_a_time_and_all_have_their_turn(tmp_path):
    towers = SlowTowers()
    examples = Examples(tmp_path, towers)

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(examples.add(sent(bytes([one])), max_bytes=10) for one in range(8)))

    assert len(set(asyncio.run(all_at_once()))) == 8
    assert (towers.num_read, towers.most_at_once) == (8, 2)


def test_an_example_without_room_is_refused_and_leaves_nothing(tmp_path):
    examples = Examples(tmp_path, SlowTowers())
    with pytest.raises(NoRoom):
        asyncio.run(examples.add(sent(b"a"), max_bytes=1 << 62, expected_bytes=1 << 61))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_feature_that_was_cut_off_is_none_and_is_made_again(tmp_path):
    towers = SlowTowers()
    examples = Examples(tmp_path, towers)
    name = asyncio.run(examples.add(sent(b"a"), max_bytes=10))
    (kept,) = tmp_path.rglob("*.npy")
    kept.write_bytes(b"")
    assert examples.feature(name) is None
    assert asyncio.run(examples.add(sent(b"a"), max_bytes=10)) == name
    assert examples.feature(name).tolist() == [1, 1, 1, 1] and towers.num_read == 2
