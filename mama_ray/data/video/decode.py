"""Frames of a video: timestamps in, uint8 RGB frames out, whatever the container.

`VideoDecoder` reads by PyAV, or by decord where the config asks for it and decord can (decord_reader.py says what it
cannot). An asked frame that cannot be decoded is replaced by the nearest asked one that can, and counted; when more
than `max_replaced` of the asked frames had to be replaced, the video is refused. So a file cut off near its end still
serves, and a ruined one never passes as a video.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mama_ray.data.video.container import Deadline, DecodeError, open_video
from mama_ray.data.video.decord_reader import DecordFailed, DecordReader
from mama_ray.data.video.orientation import shown_size
from mama_ray.data.video.packets import index_packets
from mama_ray.data.video.pyav_reader import OpenVideo, PyavReader
from mama_ray.data.video.settings import DecodeConfig

__all__ = ["DecodeError", "VideoDecoder"]

logger = logging.getLogger(__name__)


class VideoDecoder:
    """One open video.

    Args:
        data: the file's bytes or its path.
        width, height: size of the frames, scaled (bicubic) inside the decoder without regard to the aspect ratio;
            with only one given the other follows the aspect ratio; with none the frames keep their size.
        short_side, long_side: alternatively, the shorter or the longer side's size at most, in proportion.
        fit: alternatively, the (width, height) that the frames are to fill in one of them, in proportion, scaled up or
            down.
        config: limits.

    Attributes:
        num_frames, fps: of the presented frames.
        start_s, duration_s: when the first frame is shown, and when the last has been, from the container's time 0.
        timestamps_s: float64 (num_frames,), from start_s.
        width, height: of the frames given out, upright.
        shown_size: width and height at which the video is shown, upright.
        num_replaced: asked frames so far that a neighbour stood in for, because they could not be decoded.

    Raises DecodeError when the video is broken, empty or over a limit; decoding errors of single frames come later,
    from `frames_at`.
    """

    def __init__(
        self,
        data: bytes | str | Path,
        *,
        width: int | None = None,
        height: int | None = None,
        short_side: int | None = None,
        long_side: int | None = None,
        fit: tuple[int, int] | None = None,
        config: DecodeConfig | None = None,
    ) -> None:
        self._data = data
        self._config = config or DecodeConfig()
        self._try_decord = self._config.reader == "decord"
        # PyAV turns each frame as it comes; the first one need not be known where the size is given.
        looks = self._try_decord or width is None or height is None
        self._still_open: OpenVideo | None = None
        with ExitStack() as closing:
            container, stream = closing.enter_context(open_video(data, self._config))
            self._index = index_packets(container, stream, self._config, looks=looks)
            if not self._try_decord and OpenVideo.reads_again(self._index):
                self._still_open = OpenVideo(container, stream, closing.pop_all())
        self.shown_size = shown_size(
            self._index.width, self._index.height, self._index.pixel_aspect, self._index.orientation
        )
        self.width, self.height = output_size(self.shown_size, width, height, short_side, long_side, fit)
        self.num_frames = self._index.num_frames
        self.fps = self._index.shown_fps
        self.start_s, self.duration_s = self._index.start_s, self._index.duration_s
        self.timestamps_s = self._index.timestamps_s
        self.num_replaced = 0

    def frames_at(self, timestamps_s: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the frames shown at these times, uint8 (len(timestamps_s), height, width, 3), RGB.

        The frame shown at t is the last whose timestamp is not later than t; times outside the video are clamped to
        it, and a video with fewer frames than asked for repeats frames. Order and repetitions are those of the
        request.
        """
        return self.frames_by_index(self.indices_at(timestamps_s))

    def indices_at(self, timestamps_s: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the numbers of the frames shown at these times, int64, as `frames_at` chooses them."""
        times = np.asarray(timestamps_s, dtype=np.float64)
        if not np.isfinite(times).all():
            raise ValueError(f"timestamps_s: got {times.tolist()}, wanted finite seconds")
        # A microsecond of slack: a time computed as k / fps must find frame k although both are rounded.
        found = np.searchsorted(self.timestamps_s, times + 1e-6, side="right") - 1
        return np.clip(found, 0, self.num_frames - 1)

    def frames_by_index(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames of these numbers, counted in order of presentation and clamped to the video."""
        indices = np.clip(np.asarray(indices, dtype=np.int64), 0, self.num_frames - 1)
        if len(indices) == 0:
            return np.empty((0, self.height, self.width, 3), dtype=np.uint8)
        unique = np.unique(indices)
        frames = self._read(unique)
        if len(frames) < len(unique):
            self._replace_missing(unique, frames, np.isin(indices, list(frames)))
        return np.stack([frames[index] for index in indices.tolist()])

    def _read(self, indices: np.ndarray) -> dict[int, np.ndarray]:
        if self._try_decord:
            deadline = Deadline.after(self._config.timeout_s, time.monotonic)  # it decodes in threads of its own
            try:
                # A reader lives for one call: kept ones hold their threads and all decoded packets.
                return DecordReader(self._data, self._index, self.width, self.height).read(indices, deadline)
            except DecordFailed as error:
                logger.debug("decord cannot read this video, PyAV does: %s", error)
                self._try_decord = False
        still_open, self._still_open = self._still_open, None
        reader = PyavReader(self._data, self._index, self.width, self.height, self._config, still_open=still_open)
        return reader.read(indices, Deadline.after(self._config.timeout_s))

    def _replace_missing(self, unique: np.ndarray, frames: dict[int, np.ndarray], is_read: np.ndarray) -> None:
        num_missing = int((~is_read).sum())
        if not frames or num_missing > self._config.max_replaced * len(is_read):
            raise DecodeError(
                "too many frames cannot be decoded",
                got=f"{num_missing} of {len(is_read)}",
                limit=f"{self._config.max_replaced:.0%}",
            )
        good = np.array(sorted(frames))
        for index in unique.tolist():
            if index not in frames:
                frames[index] = frames[int(good[np.abs(good - index).argmin()])]
        self.num_replaced += num_missing
        logger.warning("%d of %d frames cannot be decoded; their neighbours stand in", num_missing, len(is_read))


def output_size(
    shown: tuple[int, int],
    width: int | None = None,
    height: int | None = None,
    short_side: int | None = None,
    long_side: int | None = None,
    fit: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Return the (width, height) of frames that are shown in the size `shown`; see `VideoDecoder`."""
    if width is not None and height is not None:
        return width, height
    shown_width, shown_height = shown
    scale = 1.0
    if width is not None:
        return width, max(1, round(shown_height * width / shown_width))
    if height is not None:
        return max(1, round(shown_width * height / shown_height)), height
    if fit is not None:
        scale = min(fit[0] / shown_width, fit[1] / shown_height)
    elif short_side is not None:
        scale = min(1.0, short_side / min(shown_width, shown_height))
    elif long_side is not None:
        scale = min(1.0, long_side / max(shown_width, shown_height))
    return max(1, round(shown_width * scale)), max(1, round(shown_height * scale))
