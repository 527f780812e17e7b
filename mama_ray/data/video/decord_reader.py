"""Pixels by decord, with its known faults kept inside: an option for videos that are known to be sound.

decord 0.6 carries FFmpeg 4.1. It reads no GIF and no AV1, does not honour edit lists when seeking, gives wrong times
and frames for AVI, takes a mirror for a turn and a cover for a video, and mistakes the padding of narrow rows for a
fourth channel. Times therefore come from our own index, frames one by one through `next`, and what decord cannot do
raises `DecordFailed` so that the caller can use PyAV. On damaged files (flipped bits) it was seen to die of a
segmentation fault and to wait for ever, which is why it is not the default.
"""

import io
import os
from pathlib import Path

import numpy as np

from mama_ray.data.video.container import Deadline
from mama_ray.data.video.orientation import Orientation
from mama_ray.data.video.packets import VideoIndex

SKIP_CHUNK = 32  # frames skipped in one native call: the deadline is looked at in between
# decord polls at the end of a damaged file; its default of 10240 rounds can take minutes, fewer than a few hundred fail
# on sound files whose last packets arrive late.
EOF_RETRIES = "1024"
_ROTATED = "mov,mp4"  # containers whose rotation FFmpeg 4.1 knows; newer Matroska can carry one too


class DecordFailed(Exception):
    """decord cannot read this video; another reader may."""


class DecordReader:
    """Reads frames by index at one output size (None keeps the coded size), already rotated upright by decord."""

    def __init__(
        self,
        data: bytes | str | Path,
        index: VideoIndex,
        width: int | None,
        height: int | None,
    ) -> None:
        reason = _beyond_decord(index)
        if reason is not None:
            raise DecordFailed(reason)
        os.environ.setdefault("DECORD_EOF_RETRY_MAX", EOF_RETRIES)
        import decord  # here, because loading its libraries takes 0.1 s that jobs without video need not pay

        decord.logging.set_level(decord.logging.QUIET)
        source = io.BytesIO(data) if isinstance(data, bytes | bytearray | memoryview) else str(data)
        try:
            # One thread: the default takes every core, and many decoders run side by side.
            self._reader = decord.VideoReader(source, width=width or -1, height=height or -1, num_threads=1)
        except (decord.DECORDError, RuntimeError, AssertionError) as error:
            raise DecordFailed(str(error)) from error
        if len(self._reader) != index.num_packets or index.num_packets != index.num_frames:
            raise DecordFailed("the frame counts differ or an edit list hides frames")
        self._error = decord.DECORDError
        self._key_indices = np.flatnonzero(index.is_key)
        self._position = 0

    def read(self, indices: np.ndarray, deadline: Deadline) -> dict[int, np.ndarray]:
        """Return {index: uint8 frame (height, width, 3)} for ascending `indices`."""
        frames = {}
        try:
            for index in indices.tolist():
                self._go_to(index, deadline)
                frames[index] = _crop_padding(self._reader.next().asnumpy())
                self._position = index + 1
        except (self._error, StopIteration) as error:
            raise DecordFailed(str(error)) from error
        return frames

    def _go_to(self, index: int, deadline: Deadline) -> None:
        deadline.check()
        num_keys_before = np.searchsorted(self._key_indices, index, side="right")
        key = self._key_indices[num_keys_before - 1] if num_keys_before else 0
        if key > self._position or index < self._position:
            self._reader.seek_accurate(index)
            return
        # Decoding on is cheaper than a seek inside a group of pictures, and most of a small clip is wanted anyway.
        for start in range(self._position, index, SKIP_CHUNK):
            self._reader.skip_frames(min(SKIP_CHUNK, index - start))
            deadline.check()


def _beyond_decord(index: VideoIndex) -> str | None:
    """Say why decord would give something else than what players show; None where it would not."""
    if index.pts is None:
        return "the container has no times of presentation: decord gives wrong frames at its end"
    if index.mended_pts is not None:
        return "the clock of the file is broken"
    if index.num_video_streams > 1:
        return "there are several pictures, of which decord may choose another one"
    orientation = index.orientation or Orientation()
    if orientation.is_mirrored:
        return "the picture is mirrored"
    if orientation.rotation and not index.container.startswith(_ROTATED):
        return "decord does not know the rotation of this container"
    return None


def _crop_padding(frame: np.ndarray) -> np.ndarray:
    """Undo decord's guess of channels = row bytes / width, which counts the row's padding (48 pixels: 192 bytes, 4)."""
    height, width, channels = frame.shape
    if channels == 3:
        return frame
    return frame.reshape(height, width * channels)[:, : width * 3].reshape(height, width, 3)
