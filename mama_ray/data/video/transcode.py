"""A clip made smaller, so that every later reading of it is cheap: fewer and smaller frames, key frames close together,
no sound.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain

from av.video.frame import VideoFrame

from mama_ray.data.video.container import Deadline, DecodeError, decode_errors
from mama_ray.data.video.cut import SourceVideo
from mama_ray.data.video.probe import VideoInfo, probe_video
from mama_ray.data.video.recode import Encoding, encode_frames
from mama_ray.data.video.settings import DecodeConfig, TranscodeConfig

_SAME_S = 1e-6  # times are rounded


@dataclass(frozen=True)
class Transcoded:
    """A clip made smaller, or None for one that is best kept as it is, and how many of its frames did not decode."""

    data: bytes | None
    num_missing: int


def make_smaller(path: str, to: str, config: TranscodeConfig, decode: DecodeConfig, *, num_missing: int = 0) -> dict:
    """Make a clip, a local file, smaller and write it to `to`, which may be the file itself.

    num_missing: frames that it has not, because they did not decode when it was cut.

    Returns facts to put over those of the clip: those of `VideoInfo`, `is_cut` (it is at `to`), `source_sha256` (of
    the clip as it was), and `num_missing` of it all; the last alone where the clip is kept. Raises as `transcode` does.
    """
    made = transcode(path, config, decode, num_missing=num_missing)
    if made.data is None:
        return {"num_missing": made.num_missing}
    with open(path, "rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    with open(to, "wb") as file:
        file.write(made.data)
    info = probe_video(to, decode)
    return {**asdict(info), "is_cut": True, "source_sha256": sha256, "num_missing": made.num_missing}


def transcode(path: str, config: TranscodeConfig, decode: DecodeConfig, *, num_missing: int = 0) -> Transcoded:
    """Make a clip, a local file, smaller: H.264, yuv420p, square pixels, even size, upright, no sound.

    Time 0 is where the first frame is shown. The same file and settings give the same bytes. A clip is kept where it
    is neither larger nor faster than asked for, already of this form, and would not lose a byte. Raises DecodeError
    where more than `max_replaced` of its frames do not decode: encoded anew it would pass for a sound one.
    """
    with SourceVideo(path, decode) as source, decode_errors():
        info = source.info
        size, fps = size_of(info, config), min(info.fps, config.fps)
        counted = _Counted(source.frames(Deadline.after(config.timeout_s)))
        frames = thinned(counted, info.first_frame_s, info.duration_s, fps) if fps < info.fps else counted
        encoding = Encoding(config.crf, config.key_every, decodes_fast=True)
        data = encode_frames(frames, info.first_frame_s, info.duration_s, size=size, fps=fps, encoding=encoding)
        num_frames = source.num_told + num_missing
        is_small = fps == info.fps and size == (info.width, info.height) and source.is_plain
    num_missing = max(0, num_frames - counted.num_frames)
    if num_missing > decode.max_replaced * num_frames:
        got, limit = f"{num_missing} of {num_frames}", f"{decode.max_replaced:.0%}"
        raise DecodeError("too many frames cannot be decoded", got=got, limit=limit)
    is_kept = is_small and len(data) >= os.path.getsize(path)
    return Transcoded(None if is_kept else data, num_missing)


def size_of(info: VideoInfo, config: TranscodeConfig) -> tuple[int, int]:
    """Return the even (width, height) in which a clip is stored: in proportion, never larger than it is shown."""
    assert config.short_side is not None  # else nothing is made smaller
    scale = config.short_side / min(info.width, info.height)
    if scale >= 1:
        return info.width // 2 * 2, info.height // 2 * 2
    return max(2, 2 * round(info.width * scale / 2)), max(2, 2 * round(info.height * scale / 2))


def thinned(
    frames: Iterator[tuple[float, VideoFrame]], start_s: float, end_s: float, fps: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Yield, of (timestamp_s, frame) in their order, those that are shown in the middle of an interval of 1/fps, at its
    beginning. One that stays comes once.
    """
    num_intervals = max(1, math.ceil((end_s - start_s) * fps - _SAME_S))

    def middle_of(interval: int) -> float:
        begin_s = start_s + interval / fps
        return (begin_s + min(begin_s + 1 / fps, end_s)) / 2 + _SAME_S

    interval, shown = 0, None
    for timestamp_s, frame in chain(frames, [(math.inf, None)]):
        if shown is not None and interval < num_intervals and middle_of(interval) < timestamp_s:
            yield start_s + interval / fps, shown
            while interval < num_intervals and middle_of(interval) < timestamp_s:
                interval += 1
        shown = frame


class _Counted:
    """Counts what it lets through."""

    def __init__(self, frames: Iterator[tuple[float, VideoFrame]]) -> None:
        self._frames, self.num_frames = frames, 0

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> tuple[float, VideoFrame]:
        timed = next(self._frames)
        self.num_frames += 1
        return timed
