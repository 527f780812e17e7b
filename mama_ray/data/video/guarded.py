"""The frames of clips, decoded in child processes: what `sampled.py` gives, for readers of files nobody vouches for.

A process that decodes keeps its children from clip to clip, one for each of its threads that decodes at the time. They
have the limits of `DecodeConfig`, and end with it.
"""

import atexit
import contextlib
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.settings import DecodeConfig

_KEPT_CONFIGS = 4


def sampled_frames(
    data: bytes | str | Path,
    *,
    num_frames: int,
    size: Mapping[str, int],
    offsets: Sequence[float] | None = None,
    decode: DecodeConfig | None = None,
) -> np.ndarray:
    """Return `sampled.sampled_frames`. Raises DecodeError, for a crash or a hang of the decoder too, and OSError when
    the machine has no room.
    """
    return _guards_for(decode or DecodeConfig()).use(
        lambda guard: guard.sampled_frames(data, num_frames=num_frames, size=size, offsets=offsets)
    )


def located_frames(
    data: bytes | str | Path, *, num_frames: int, size: Mapping[str, int], decode: DecodeConfig | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `sampled.located_frames`. Raises as `sampled_frames` does."""
    return _guards_for(decode or DecodeConfig()).use(
        lambda guard: guard.located_frames(data, num_frames=num_frames, size=size)
    )


def spread_frames(
    data: bytes | str | Path, *, num_frames: int, fit: tuple[int, int], decode: DecodeConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return `sampled.spread_frames`. Raises as `sampled_frames` does."""
    return _guards_for(decode or DecodeConfig()).use(
        lambda guard: guard.spread_frames(data, num_frames=num_frames, fit=fit)
    )


def clip_frames(
    data: bytes | str | Path,
    *,
    num_clips: int,
    frames_per_clip: int,
    short_side: int,
    decode: DecodeConfig | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return `sampled.clip_frames`. Raises as `sampled_frames` does."""
    return _guards_for(decode or DecodeConfig()).use(
        lambda guard: guard.clip_frames(
            data, num_clips=num_clips, frames_per_clip=frames_per_clip, short_side=short_side
        )
    )


def window_frames(
    data: bytes | str | Path,
    *,
    num_windows: int,
    frames_per_window: int,
    window: int,
    size: Mapping[str, int],
    decode: DecodeConfig | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return `views.window_frames`. Raises as `sampled_frames` does."""
    return _guards_for(decode or DecodeConfig()).use(
        lambda guard: guard.window_frames(
            data, num_windows=num_windows, frames_per_window=frames_per_window, window=window, size=size
        )
    )


@contextlib.contextmanager
def guard_of(decode: DecodeConfig) -> Iterator[VideoGuard]:
    """Give a guard for several questions in a row, to nobody else until the block ends."""
    guards = _guards_for(decode)
    guard = guards.take()
    try:
        yield guard
    finally:
        guards.give_back(guard)


class _Guards:
    """The guards that no thread uses at the moment."""

    def __init__(self, config: DecodeConfig) -> None:
        self._config = config
        self._idle: queue.SimpleQueue[VideoGuard] = queue.SimpleQueue()
        atexit.register(self.close)

    def use(self, ask: Callable[[VideoGuard], Any]) -> Any:
        guard = self.take()
        try:
            return ask(guard)
        finally:
            self.give_back(guard)

    def take(self) -> VideoGuard:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return VideoGuard(self._config)

    def give_back(self, guard: VideoGuard) -> None:
        self._idle.put(guard)

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()


@lru_cache(maxsize=_KEPT_CONFIGS)
def _guards_for(config: DecodeConfig) -> _Guards:
    return _Guards(config)
