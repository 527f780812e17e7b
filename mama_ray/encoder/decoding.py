"""Many videos decoded beside each other, each in a process that a hostile file may crash or hang without harm."""

import os
import queue
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.loading import decoded_size
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig, transform_frames

_AHEAD = 2  # videos per process that may be decoded before they are asked for


@dataclass(frozen=True)
class VideoError:
    """Why a file could not be encoded.

    Attributes:
        path: as it was given, '' of a video that was given as bytes.
        reason: one line.
        is_of_video: whether it is a fact about the file's content; else the file could not be read at all, which may
            be different the next time.
    """

    path: str
    reason: str
    is_of_video: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class FrameLoader:
    """Loads the frames of evaluation (`load_clip_frames` without chance) of files, in `num_processes` at a time."""

    num_frames: int
    transform: TransformConfig
    decode: DecodeConfig
    num_processes: int

    def load(self, videos: Sequence[str | bytes]) -> Iterator[np.ndarray | VideoError]:
        """Yield per path, or bytes of a video, in order, uint8 (frames, height, width, 3) or why there are none."""
        num_processes = min(self.num_processes, len(videos))
        if num_processes == 0:
            return
        with self._guards(num_processes) as guards, ThreadPoolExecutor(num_processes) as pool:
            waiting: deque[Future] = deque()
            try:
                for video in videos:
                    waiting.append(pool.submit(self._load_one, guards, video))
                    if len(waiting) > _AHEAD * num_processes:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    @contextmanager
    def _guards(self, num_processes: int) -> Iterator["queue.SimpleQueue[VideoGuard]"]:
        """Give guards; a guard is one thread's as long as it is not in the queue."""
        guards: queue.SimpleQueue[VideoGuard] = queue.SimpleQueue()
        made = [VideoGuard(self.decode) for _ in range(num_processes)]
        for guard in made:
            guards.put(guard)
        try:
            yield guards
        finally:
            for guard in made:
                guard.close()

    def _load_one(self, guards: "queue.SimpleQueue[VideoGuard]", video: str | bytes) -> np.ndarray | VideoError:
        path = video if isinstance(video, str) else ""
        try:
            if isinstance(video, str):
                _require_readable_file(video)
            size = decoded_size(self.transform, at_random=False)
            guard = guards.get()
            try:
                frames = guard.sampled_frames(video, num_frames=self.num_frames, size=size)
            finally:
                guards.put(guard)
        except DecodeError as error:
            return VideoError(path, " ".join(str(error).split()), is_of_video=True)
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte in it
            return VideoError(path, _reason(error), is_of_video=False)
        return transform_frames(frames, self.transform, rng=None)


def _require_readable_file(path: str) -> None:
    """Raise OSError for what cannot be opened, without opening a pipe or a device, which might never answer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a file")
    with open(path, "rb"):
        pass


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
