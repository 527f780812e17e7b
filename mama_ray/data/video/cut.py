"""Cutting [start_s, end_s) out of a video into a file of its own."""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mama_ray.data.video.container import Deadline, DecodeError, VideoIndex, index_packets, open_video
from mama_ray.data.video.pyav_reader import decode_frames
from mama_ray.data.video.settings import DecodeConfig

TIME_BASE = Fraction(1, 90_000)  # holds every usual frame rate's times, the NTSC ones included, to a few microseconds
QUALITY = "18"  # x264's constant rate factor: visually lossless, so that cutting costs no accuracy


def cut_clip(data: bytes | str | Path, start_s: float, end_s: float, config: DecodeConfig | None = None) -> bytes:
    """Return the frames shown in [start_s, end_s) as an H.264 mp4 (yuv420p, even size, upright, no sound).

    Times count from the first presented frame. The first frame of the cut is the one shown at start_s; every frame
    keeps its own timing, so a variable rate stays variable. An odd width or height loses its last column or row. The
    same bytes and times give the same bytes. Raises DecodeError when the video cannot be read or the interval holds
    no frame of it.
    """
    config = config or DecodeConfig()
    deadline = Deadline.after(config.timeout_s)
    if not 0 <= start_s < end_s:
        raise DecodeError("the clip's end must come after its start, and both from 0 on", got=f"[{start_s}, {end_s}) s")
    with open_video(data, config) as (container, stream):
        index = index_packets(container, stream, config)
        if start_s >= index.duration_s:
            raise DecodeError(
                "the clip starts after the video's end", got=f"{start_s} s", limit=f"{index.duration_s:.3f} s"
            )
        first = max(0, int(np.searchsorted(index.timestamps_s, start_s + 1e-6, side="right")) - 1)
        last = max(first, int(np.searchsorted(index.timestamps_s, end_s - 1e-6, side="left")) - 1)
        end_s = min(end_s, index.duration_s)
        _seek_before(container, stream, index, first)
        return _encode(_frames(container, stream, index, first, last, deadline), index.fps, start_s, end_s)


def _seek_before(container: InputContainer, stream: VideoStream, index: VideoIndex, first: int) -> None:
    keys = np.flatnonzero(index.is_key[: first + 1])
    if index.pts is None or len(keys) == 0 or keys[-1] == 0:
        container.seek(0)
    else:
        container.seek(int(index.pts[keys[-1]]), stream=stream, backward=True)


def _frames(
    container: InputContainer, stream: VideoStream, index: VideoIndex, first: int, last: int, deadline: Deadline
) -> Iterator[tuple[float, VideoFrame]]:
    """Yield (timestamp_s, frame) for the frame numbers first..last that decode."""
    numbers = None if index.pts is None else {int(pts): number for number, pts in enumerate(index.pts)}
    for count, frame in enumerate(decode_frames(container, stream, deadline)):
        number = count if numbers is None else numbers.get(frame.pts)
        if number is None or number < first:
            continue
        if number > last:
            return
        yield float(index.timestamps_s[number]), frame


def _encode(frames: Iterator[tuple[float, VideoFrame]], fps: float, start_s: float, end_s: float) -> bytes:
    """Encode frames that each stay until the next one, the last until end_s."""
    buffer, encoder = io.BytesIO(), None
    durations: dict[int | None, int] = {}
    current = next(frames, None)
    if current is None:
        raise DecodeError("no frame of the clip can be decoded", got=f"[{start_s}, {end_s}) s")
    with av.open(
        buffer, "w", format="mp4", options={"fflags": "+bitexact"}
    ) as output:  # bitexact: no versions, no dates
        while current is not None:
            following = next(frames, None)
            frame = _upright_even(current[1])
            if encoder is None:
                encoder = _add_stream(output, frame, fps)
            frame.time_base = TIME_BASE
            frame.pts = _ticks(current[0] - start_s)
            durations[frame.pts] = max(1, _ticks((following[0] if following else end_s) - start_s) - frame.pts)
            _mux(output, encoder.encode(frame), durations)
            current = following
        assert encoder is not None  # there was a first frame
        _mux(output, encoder.encode(), durations)
    return buffer.getvalue()


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
    stream.options = {"crf": QUALITY, "preset": "veryfast", "flags": "+bitexact"}
    return stream


def _upright_even(frame: VideoFrame) -> VideoFrame:
    """Turn a frame upright, crop it to even sides and give it a fresh frame without the source's picture types."""
    rgb = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
    height, width = (max(2, side // 2 * 2) for side in rgb.shape[:2])
    if rgb.shape[0] < 2 or rgb.shape[1] < 2:
        raise DecodeError("the frames are too small for H.264", got=f"{rgb.shape[1]}x{rgb.shape[0]}", limit="2x2")
    even: Any = np.ascontiguousarray(rgb[:height, :width])  # uint8, as rgb24 is
    return VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
