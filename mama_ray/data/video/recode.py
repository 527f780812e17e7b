"""Frames of a video as an H.264 file of their own: the same frames and times give the same bytes."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.fields import as_whole_picture
from mama_ray.data.video.orientation import orientation_of

TIME_BASE = Fraction(1, 90_000)  # holds every usual frame rate's times, the NTSC ones included, to a few microseconds
# x264's AVX-512 code gives other bytes in each run (its macroblock tree reads what nobody wrote); AVX's do not change.
REPEATABLE = "asm=avx"


@dataclass(frozen=True)
class Encoding:
    """What x264 is asked for.

    Attributes:
        crf: its constant rate factor; 18 is visually lossless, so that cutting costs no accuracy.
        key_every: most frames from one key frame to the next, and the last frame is one; None is x264's own.
        decodes_fast: without CABAC and the deblocking filter, which take a decoder longer than all else: half the time
            for a tenth more bytes.
    """

    crf: int = 18
    key_every: int | None = None
    decodes_fast: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """As FFmpeg has them; bitexact: no versions in the stream."""
        asked = {"crf": str(self.crf), "preset": "veryfast", "flags": "+bitexact", "x264-params": REPEATABLE}
        asked |= {"g": str(self.key_every), "forced-idr": "1"} if self.key_every is not None else {}
        return asked | ({"tune": "fastdecode"} if self.decodes_fast else {})


AS_CUT = Encoding()


def encode_frames(
    frames: Iterator[tuple[float, VideoFrame]],
    start_s: float,
    end_s: float,
    *,
    size: tuple[int, int],
    fps: float,
    encoding: Encoding = AS_CUT,
) -> bytes:
    """Encode (timestamp_s, frame as it is coded) of [start_s, end_s), shown at the (width, height) of `size`.

    Each frame stays until the next one, the last until end_s. Raises DecodeError where there is no frame.
    """
    buffer, encoder = io.BytesIO(), None
    durations: dict[int | None, int] = {}
    current = next(frames, None)
    if current is None:
        raise DecodeError("no frame of the clip can be decoded", got=f"[{start_s}, {end_s}) s")
    # bitexact: no versions, no dates
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        while current is not None:
            following = next(frames, None)
            frame = _upright_even(current[1], *size)
            if encoder is None:
                encoder = _add_stream(output, frame, fps, encoding)
            if following is None and encoding.key_every is not None:
                frame.pict_type = PictureType.I  # decoded last, or mp4 could not say how long it stays
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


def _add_stream(output: OutputContainer, frame: VideoFrame, fps: float, encoding: Encoding) -> VideoStream:
    rate = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)  # of a picture that stays for an hour
    stream = output.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
    stream.codec_context.time_base = TIME_BASE
    stream.codec_context.thread_count = 1
    stream.options = encoding.options
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
