"""Pixels by PyAV: the reader for anything, however damaged.

It decodes packet by packet, steps over packets that do not decode, and seeks to the key frame before a wanted frame
when that lies ahead.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mama_ray.data.video.container import Deadline, VideoIndex, open_video
from mama_ray.data.video.settings import DecodeConfig


class PyavReader:
    """Reads frames by index at one output size, upright."""

    def __init__(
        self, data: bytes | str | Path, index: VideoIndex, width: int | None, height: int | None, config: DecodeConfig
    ) -> None:
        self._data, self._index, self._config = data, index, config
        self._width, self._height = width, height
        self._scaler = VideoReformatter()  # one for all frames: setting one up costs as much as decoding a small frame

    def read(self, indices: np.ndarray, deadline: Deadline) -> dict[int, np.ndarray]:
        """Return {index: uint8 frame (height, width, 3)} of those of the ascending `indices` that can be decoded."""
        frames: dict[int, np.ndarray] = {}
        with open_video(self._data, self._config) as (container, stream):
            if self._index.pts is None:
                self._read_by_count(container, stream, indices, frames, deadline)
            else:
                self._read_by_pts(container, stream, indices, frames, deadline)
        return frames

    @property
    def _pts(self) -> np.ndarray:
        assert self._index.pts is not None  # where the container has none, frames are counted
        return self._index.pts

    def _read_by_count(self, container, stream, indices, frames, deadline) -> None:
        wanted = set(indices.tolist())
        for number, frame in enumerate(decode_frames(container, stream, deadline)):
            if number in wanted:
                frames[number] = self._to_rgb(frame)
            if number >= indices[-1]:
                return

    def _read_by_pts(self, container, stream, indices, frames, deadline) -> None:
        """Go through the wanted frames in groups without a key frame between them, each reached by one seek."""
        keys = np.flatnonzero(self._index.is_key)
        previous_key = np.searchsorted(keys, indices, side="right") - 1
        # A frame before the first presented key frame hangs on one that an edit list hides: decode from the beginning.
        key_of = np.where(previous_key >= 0, keys[previous_key], 0) if len(keys) else np.zeros_like(indices)
        starts = [0, *(np.flatnonzero(key_of[1:] > indices[:-1] + 1) + 1).tolist(), len(indices)]
        for start, stop in pairwise(starts):
            if key_of[start] > 0:
                container.seek(int(self._pts[key_of[start]]), stream=stream, backward=True)
            self._collect(container, stream, indices[start:stop], frames, deadline)
        missing = np.array([index for index in indices.tolist() if index not in frames], dtype=np.int64)
        if len(missing) and key_of[-1] > 0:
            # Some containers seek past the place asked for; one pass from the beginning decides what cannot be decoded.
            container.seek(0)
            self._collect(container, stream, missing, frames, deadline)

    def _collect(self, container, stream, indices, frames, deadline) -> None:
        """Decode on from the current place and keep the frames of these numbers."""
        wanted = {int(self._pts[index]): index for index in indices.tolist()}
        last = int(self._pts[indices[-1]])
        for frame in decode_frames(container, stream, deadline):
            if frame.pts in wanted:
                frames[wanted[frame.pts]] = self._to_rgb(frame)
            if frame.pts is not None and frame.pts >= last:
                return

    def _to_rgb(self, frame: VideoFrame) -> np.ndarray:
        """Convert one frame, scaled before it is turned upright."""
        quarter_turns = round(frame.rotation / 90) % 4
        width, height = self._width or None, self._height or None
        if quarter_turns % 2:
            width, height = height, width
        # decord's scaler is bicubic too, so both readers give the same pixels.
        rgb = self._scaler.reformat(
            frame, format="rgb24", width=width, height=height, interpolation="BICUBIC", threads=1
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb


def decode_frames(container: InputContainer, stream: VideoStream, deadline: Deadline) -> Iterator[VideoFrame]:
    """Yield the frames that decode; a packet that does not is stepped over, the end of a cut-off file ends the
    video."""
    packets = container.demux(stream)
    while True:
        deadline.check()
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue
