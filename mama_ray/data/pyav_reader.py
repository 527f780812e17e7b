"""Pixels by PyAV: the second reader, for GIF, AV1, edit lists and damaged files.

It decodes packet by packet, steps over packets that do not decode, and seeks to the key frame before a wanted frame when
that lies ahead.
"""

from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mama_ray.data.container import Deadline, DecodeConfig, VideoIndex, open_video


class PyavReader:
    """Reads frames by index at one output size, upright."""

    def __init__(
        self,
        data: bytes | str | Path,
        index: VideoIndex,
        width: int | None,
        height: int | None,
        config: DecodeConfig,
    ) -> None:
        self._data, self._index, self._config = data, index, config
        self._width, self._height = width, height

    def read(self, indices: np.ndarray, deadline: Deadline) -> dict[int, np.ndarray]:
        """Return {index: uint8 frame (height, width, 3)} of those of the ascending `indices` that can be decoded."""
        frames: dict[int, np.ndarray] = {}
        with open_video(self._data, self._config) as (container, stream):
            if self._index.pts is None:
                self._read_by_count(container, stream, indices, frames, deadline)
            else:
                self._read_by_pts(container, stream, indices, frames, deadline)
        return frames

    def _read_by_count(self, container, stream, indices, frames, deadline) -> None:
        wanted, count = set(indices.tolist()), 0
        for frame in _decode(container, stream, deadline):
            if count in wanted:
                frames[count] = self._to_rgb(frame)
            count += 1
            if count > indices[-1]:
                return

    def _read_by_pts(self, container, stream, indices, frames, deadline) -> None:
        """Go through the video group by group: one pass over the wanted frames that share their nearest key frames."""
        pts, keys = self._index.pts, np.flatnonzero(self._index.is_key)
        wanted = {int(pts[index]): index for index in indices.tolist()}
        key_of = (
            keys[np.maximum(np.searchsorted(keys, indices, side="right") - 1, 0)]
            if len(keys)
            else 0 * indices
        )
        start = 0
        while start < len(indices):
            stop = start + 1
            # A gap without a key frame of its own is decoded through; otherwise the next group starts with a seek.
            while stop < len(indices) and key_of[stop] <= indices[stop - 1] + 1:
                stop += 1
            if key_of[start] > 0:
                container.seek(int(pts[key_of[start]]), stream=stream, backward=True)
            last = int(pts[indices[stop - 1]])
            for frame in _decode(container, stream, deadline):
                if frame.pts in wanted:
                    frames[wanted[frame.pts]] = self._to_rgb(frame)
                if frame.pts is not None and frame.pts >= last:
                    break
            start = stop

    def _to_rgb(self, frame: VideoFrame) -> np.ndarray:
        """Convert one frame, scaled before it is turned upright."""
        quarter_turns = round(frame.rotation / 90) % 4
        width, height = self._width or None, self._height or None
        if quarter_turns % 2:
            width, height = height, width
        # decord's scaler is bicubic too, so both readers give the same pixels.
        rgb = frame.to_ndarray(
            format="rgb24", width=width, height=height, interpolation="BICUBIC"
        )
        return (
            np.ascontiguousarray(np.rot90(rgb, quarter_turns)) if quarter_turns else rgb
        )


def _decode(container: InputContainer, stream: VideoStream, deadline: Deadline):
    """Yield the frames that decode; a packet that does not is stepped over, the end of a cut-off file ends the video."""
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
