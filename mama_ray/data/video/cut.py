"""Cutting [start_s, end_s) out of a video into a file of its own."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from mama_ray.data.video.container import Deadline, DecodeError, decode_errors, open_video
from mama_ray.data.video.orientation import UPRIGHT
from mama_ray.data.video.packets import (
    VideoIndex,
    decode_frames,
    first_packets,
    index_packets,
    listed_frames,
    seek_packets,
)
from mama_ray.data.video.probe import describe
from mama_ray.data.video.recode import encode_frames
from mama_ray.data.video.settings import DecodeConfig

# Ends that differ by less than this are the end of the video: annotations are rounded, and a cut costs an encode.
END_TOLERANCE_S = 0.05


def cut_clip(data: bytes | str | Path, start_s: float, end_s: float, config: DecodeConfig | None = None) -> bytes:
    """Return `SourceVideo.cut` of a video of which one clip is wanted."""
    with SourceVideo(data, config) as source:
        return source.cut(start_s, end_s)


class SourceVideo:
    """A video that is opened and indexed once, for any number of cuts: each decodes from the key frame before it.

    Attributes:
        info: the facts of the whole video.

    Raises DecodeError when the video cannot be read.
    """

    def __init__(self, data: bytes | str | Path, config: DecodeConfig | None = None) -> None:
        self._data, self._config = data, config or DecodeConfig()
        self._files = ExitStack()
        with self._files:
            self._container, self._stream = self._files.enter_context(open_video(data, self._config))
            self._index = index_packets(self._container, self._stream, self._config, looks=True)
            self._files = self._files.pop_all()
        self.info = describe(self._index)

    def __enter__(self) -> "SourceVideo":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._files.close()

    def cut(self, start_s: float, end_s: float) -> bytes:
        """Return the frames shown in [start_s, end_s) as an H.264 mp4 (yuv420p, square pixels, even size, upright, no
        sound).

        Times count from the container's time 0. The first frame of the cut is the one shown at start_s, or the video's
        first if none is shown yet; every frame keeps its own timing, so a variable rate stays variable. An odd width or
        height loses its last column or row. The same bytes and times give the same bytes. Raises DecodeError when the
        interval holds no frame of the video.
        """
        index, deadline = self._index, Deadline.after(self._config.timeout_s)
        _check_interval(index, start_s, end_s)
        size = self.info.width, self.info.height
        with decode_errors(), ExitStack() as files:
            frames = self._frames(*self.shown_in(start_s, end_s), deadline, files)
            begin_s, end_s = max(start_s, index.start_s), min(end_s, index.duration_s)
            return encode_frames(frames, begin_s, end_s, size=size, fps=index.fps)

    @property
    def is_plain(self) -> bool:
        """Whether it is what `cut` makes: H.264 of 8 bits in 4:2:0, upright, with square pixels."""
        pixels = self._stream.codec_context.pix_fmt
        is_upright = self._index.orientation == UPRIGHT and self._index.pixel_aspect == 1
        return self._index.codec == "h264" and pixels == "yuv420p" and is_upright

    @property
    def num_told(self) -> int:
        """How many frames it shows, by its packets, and by the header where the file is cut off."""
        return max(self._index.num_frames, sum(not entry.is_discard for entry in listed_frames(self._stream)))

    @property
    def fps(self) -> float:
        """Frames per second as the container has them."""
        return self._index.fps

    def end_of(self, start_s: float, end_s: float | None) -> float:
        """Return where a clip that is asked for ends: with the video at the latest.

        Raises DecodeError for a clip that starts after it.
        """
        if start_s >= self.info.duration_s:
            raise starts_too_late(start_s, self.info.duration_s)
        return min(end_s or self.info.duration_s, self.info.duration_s)

    def covers(self, start_s: float, end_s: float) -> bool:
        """Whether a clip is all of the file."""
        return start_s == 0 and end_s >= self.info.duration_s - END_TOLERANCE_S

    def shown_in(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Return the numbers of the first and the last frame that are shown in [start_s, end_s)."""
        times = self._index.timestamps_s
        first = max(0, int(np.searchsorted(times, start_s + 1e-6, side="right")) - 1)
        return first, max(first, int(np.searchsorted(times, end_s - 1e-6, side="left")) - 1)

    def num_frames_in(self, start_s: float, end_s: float) -> int:
        """Return how many frames a cut has if all of them decode."""
        first, last = self.shown_in(start_s, end_s)
        return last - first + 1

    def time_of(self, number: int) -> float:
        """Return when a frame is shown."""
        return float(self._index.timestamps_s[number])

    def frames(self, deadline: Deadline, first: int = 0, last: int | None = None) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (timestamp_s, frame as it is coded) for the frame numbers first..last, or to the end, that decode."""
        last = self._index.num_frames - 1 if last is None else last
        with decode_errors(), ExitStack() as files:
            yield from self._frames(first, last, deadline, files)

    def _frames(
        self, first: int, last: int, deadline: Deadline, files: ExitStack
    ) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (timestamp_s, frame) for the frame numbers first..last that decode."""
        key = self._index.key_before(first)
        numbered = self._sought(key, first, last, deadline)
        if numbered is None:
            # From the beginning, in a file opened anew: raw streams cannot even go back there.
            container, stream = files.enter_context(open_video(self._data, self._config))
            packets = first_packets(container, stream, self._index, key)
            numbered = self._numbered(decode_frames(packets, stream, self._config, deadline), first, last)
        for number, frame in numbered:
            yield float(self._index.timestamps_s[number]), frame

    def _sought(self, key: int, first: int, last: int, deadline: Deadline) -> Iterator[tuple[int, VideoFrame]] | None:
        """Return the numbered frames from key frame `key` on; None where the container cannot go there."""
        if key == 0 or self._index.pts is None or self._index.mended_pts is not None:
            return None
        packets = seek_packets(self._container, self._stream, self._index, key)
        if packets is None:
            return None
        numbered = self._numbered(decode_frames(packets, self._stream, self._config, deadline), first, last)
        head = next(numbered, None)
        # Some containers land somewhere else than they say.
        return chain([head], numbered) if head is not None and head[0] == first else None

    def _numbered(self, frames: Iterator[VideoFrame], first: int, last: int) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the frames of the numbers first..last, with their numbers."""
        pts = self._index.pts
        if pts is None:
            yield from islice(enumerate(frames), first, last + 1)
            return
        numbers = {int(pts[number]): number for number in range(first, last + 1)}
        for frame in frames:
            if frame.pts in numbers:
                yield numbers[frame.pts], frame
            if frame.pts is not None and frame.pts >= pts[last]:
                return


def starts_too_late(start_s: float, duration_s: float) -> DecodeError:
    """The error of a clip of which the video has nothing."""
    return DecodeError("the clip starts after the end of the video", got=start_s, limit=f"{duration_s:.3f} s")


def _check_interval(index: VideoIndex, start_s: float, end_s: float) -> None:
    if not 0 <= start_s < end_s:
        raise DecodeError("the clip's end must come after its start, and both from 0 on", got=f"[{start_s}, {end_s}) s")
    if start_s >= index.duration_s:
        limit = f"{index.duration_s:.3f} s"
        raise DecodeError("the clip starts after the video's end", got=f"{start_s} s", limit=limit)
    if end_s <= index.start_s:
        limit = f"{index.start_s:.3f} s"
        raise DecodeError("the clip ends before the first picture", got=f"[{start_s}, {end_s}) s", limit=limit)
