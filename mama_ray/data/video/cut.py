"""Cutting [start_s, end_s) out of a video into a file of its own."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mama_ray.data.video.container import Deadline, DecodeError, decode_errors, open_video
from mama_ray.data.video.fields import as_whole_picture
from mama_ray.data.video.orientation import orientation_of
from mama_ray.data.video.packets import VideoIndex, decode_frames, first_packets, index_packets, seek_packets
from mama_ray.data.video.probe import describe
from mama_ray.data.video.settings import DecodeConfig

TIME_BASE = Fraction(1, 90_000)  # holds every usual frame rate's times, the NTSC ones included, to a few microseconds
# x264's AVX-512 code gives other bytes in each run (its macroblock tree reads what nobody wrote); AVX's do not change.
REPEATABLE = "asm=avx"
QUALITY = "18"  # x264's constant rate factor: visually lossless, so that cutting costs no accuracy


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
        first = max(0, int(np.searchsorted(index.timestamps_s, start_s + 1e-6, side="right")) - 1)
        last = max(first, int(np.searchsorted(index.timestamps_s, end_s - 1e-6, side="left")) - 1)
        with decode_errors(), ExitStack() as files:
            frames = self._frames(first, last, deadline, files)
            return self._encode(frames, max(start_s, index.start_s), min(end_s, index.duration_s))

    def frames(self, deadline: Deadline) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (timestamp_s, frame as it is coded) for all frames that decode."""
        with decode_errors(), ExitStack() as files:
            yield from self._frames(0, self._index.num_frames - 1, deadline, files)

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

    def _encode(self, frames: Iterator[tuple[float, VideoFrame]], start_s: float, end_s: float) -> bytes:
        """Encode frames that each stay until the next one, the last until end_s."""
        buffer, encoder = io.BytesIO(), None
        durations: dict[int | None, int] = {}
        current = next(frames, None)
        if current is None:
            raise DecodeError("no frame of the clip can be decoded", got=f"[{start_s}, {end_s}) s")
        # bitexact: no versions, no dates
        with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
            while current is not None:
                following = next(frames, None)
                frame = _upright_even(current[1], self.info.width, self.info.height)
                if encoder is None:
                    encoder = _add_stream(output, frame, self._index.fps)
                frame.time_base = TIME_BASE
                frame.pts = _ticks(current[0] - start_s)
                durations[frame.pts] = max(1, _ticks((following[0] if following else end_s) - start_s) - frame.pts)
                _mux(output, encoder.encode(frame), durations)
                current = following
            assert encoder is not None  # there was a first frame
            _mux(output, encoder.encode(), durations)
        return buffer.getvalue()


def _check_interval(index: VideoIndex, start_s: float, end_s: float) -> None:
    if not 0 <= start_s < end_s:
        raise DecodeError("the clip's end must come after its start, and both from 0 on", got=f"[{start_s}, {end_s}) s")
    if start_s >= index.duration_s:
        limit = f"{index.duration_s:.3f} s"
        raise DecodeError("the clip starts after the video's end", got=f"{start_s} s", limit=limit)
    if end_s <= index.start_s:
        limit = f"{index.start_s:.3f} s"
        raise DecodeError("the clip ends before the first picture", got=f"[{start_s}, {end_s}) s", limit=limit)


def _mux(output: OutputContainer, packets: list[av.Packet], durations: dict[int | None, int]) -> None:
    for packet in packets:
        packet.duration = durations[packet.pts]  # the encoder knows only the average rate
        output.mux(packet)


def _ticks(seconds: float) -> int:
    return round(max(0.0, seconds) / TIME_BASE)


def _add_stream(output: OutputContainer, frame: VideoFrame, fps: float) -> VideoStream:
    stream = output.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
    stream.codec_context.time_base = TIME_BASE
    stream.codec_context.thread_count = 1
    stream.options = {"crf": QUALITY, "preset": "veryfast", "flags": "+bitexact", "x264-params": REPEATABLE}
    return stream


def _upright_even(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """Give a frame the size (width, height) that is shown, turn it upright, crop it to even sides, and make a fresh
    frame of it, without the source's picture types."""
    if width < 2 or height < 2:
        raise DecodeError("the frames are too small for H.264", got=f"{width}x{height}", limit="2x2")
    orientation = orientation_of(frame)
    stored = (height, width) if orientation.transposes else (width, height)
    frame = as_whole_picture(frame)
    if stored != (frame.width, frame.height):  # its pixels are not square, or it is not as large as the others
        frame = frame.reformat(format="rgb24", width=stored[0], height=stored[1], interpolation="BICUBIC")
    shown = orientation.apply(frame.to_ndarray(format="rgb24"))
    even: Any = np.ascontiguousarray(shown[: height // 2 * 2, : width // 2 * 2])  # uint8, as rgb24 is
    return VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
