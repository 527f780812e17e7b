"""The frames of many windows of one video, decoded in a child process that may die of any of them.

A window on which the child dies, or hangs, is told as one that cannot be read, after a second try; the others are read
by a new child, which opens the video at the next window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from mama_ray.data.video.child_watch import ask_again
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.guarded import guard_of
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.window_reader import FramesOfWindow, WindowRequest


class WindowDecoding:
    """Reads windows of a local video in their order; an iterator over FramesOfWindow, or the DecodeError of a window.

    Attributes:
        num_decoded: frames that left the decoder so far, by all children.

    Iterating raises DecodeError where the video cannot be used at all, and OSError when the machine has no room, or
    its disks fail or stand still.
    """

    def __init__(
        self, path: str, windows: Sequence[tuple[float, float]], request: WindowRequest, decode: DecodeConfig
    ) -> None:
        self._path, self._windows, self._request, self._decode = path, windows, request, decode
        self._of_earlier = self._of_this = 0

    @property
    def num_decoded(self) -> int:
        """Frames that left the decoder so far."""
        return self._of_earlier + self._of_this

    def __iter__(self) -> Iterator[FramesOfWindow | DecodeError]:
        with guard_of(self._decode) as guard:
            is_open = False
            for number in range(len(self._windows)):
                if not is_open:
                    self._open_at(guard, number)
                found = self._read(guard, number)
                # A child that hung is gone; one that told of a window that it cannot read goes on with the next.
                is_open = guard.process_id is not None
                yield found

    def _open_at(self, guard: VideoGuard, number: int) -> None:
        self._of_earlier, self._of_this = self.num_decoded, 0
        guard.open_windows(self._path, self._windows[number:], asdict(self._request))

    def _read(self, guard: VideoGuard, number: int) -> FramesOfWindow | DecodeError:
        def ask() -> FramesOfWindow:
            if guard.process_id is None:  # it has died of this window
                self._open_at(guard, number)
            return self._next(guard)

        try:
            return ask_again(ask)
        except DecodeError as error:
            return error

    def _next(self, guard: VideoGuard) -> FramesOfWindow:
        frames, facts = guard.next_window()
        self._of_this = facts["num_decoded"]
        indices, times_s = np.array(facts["indices"], np.int64), np.array(facts["times_s"], np.float64)
        return FramesOfWindow(frames, indices, times_s, facts["num_replaced"])
