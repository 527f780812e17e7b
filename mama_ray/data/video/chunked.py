"""A video that lies in chunks: a folder `<video>.mp4/` of files named by the second in which they start, as 0.mp4,
300.mp4, 600.mp4 (LaViLa's layout of Ego4D).

A clip may span any number of chunks. An empty last chunk, as a cutter leaves it where the video ends with the chunk
before, is the end of the video; an empty or missing one before it is a hole, and a clip that needs it is refused. That
the last chunks are missing cannot be seen: the video ends where the last one that is there does.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from av.video.frame import VideoFrame

from mama_ray.data.clip import VIDEO_EXTENSIONS
from mama_ray.data.video.container import Deadline, DecodeError, decode_errors
from mama_ray.data.video.cut import SourceVideo, starts_too_late
from mama_ray.data.video.probe import VideoInfo
from mama_ray.data.video.recode import encode_frames
from mama_ray.data.video.settings import DecodeConfig, WindowConfig

_CHUNK_NAME = re.compile(rf"(\d{{1,9}})\.({'|'.join(VIDEO_EXTENSIONS)})", re.IGNORECASE)
# A chunk may be shorter or longer than it is from its start to that of the next: its encoder rounds to whole frames.
_CHUNK_TOLERANCE_S = 1.0
# The first picture of a chunk may come this much after its start; until then the last one of the chunk before is shown.
_LATE_S = 0.1
_NUM_OPEN = 2  # chunks: the clips of a table come one after the other, so one of these is the next clip's
_SHORTEST_S = 1e-4  # between two frames: the last of a chunk may be told a little later than the first of the next
# Of a file in which there is not a single picture.
_NO_PICTURES = (
    "the file is empty", "the video has no frames", "the file has no video stream",
    "the video stream has no frame size",
)  # fmt: skip


@dataclass(frozen=True)
class Chunk:
    """A file, and when in the video it starts."""

    start_s: float
    name: str


def is_chunk_name(name: str) -> bool:
    """Whether a file is named as a chunk: by a whole number of seconds."""
    return _CHUNK_NAME.fullmatch(name) is not None


def order_chunks(names: list[str]) -> list[Chunk]:
    """Return the chunks among the files of a folder, in the order of their starts.

    Raises DecodeError where there is none, or two of the same start.
    """
    chunks = [Chunk(float(match[1]), name) for name in names if (match := _CHUNK_NAME.fullmatch(name))]
    chunks.sort(key=lambda chunk: (chunk.start_s, chunk.name))
    if not chunks:
        raise DecodeError("the folder of the video has no chunks that are named by their start, as 0.mp4 and 300.mp4")
    for before, chunk in pairwise(chunks):
        if before.start_s == chunk.start_s:
            raise DecodeError("two chunks of the video have the same start", got=f"{before.name} and {chunk.name}")
    return chunks


def chunks_in(chunks: list[Chunk], start_s: float, end_s: float | None) -> range:
    """Return the numbers of the chunks that a clip needs, by their names alone."""
    starts = [chunk.start_s for chunk in chunks]
    first = max(0, bisect_right(starts, start_s) - 1)
    stop = len(chunks) if end_s is None else sum(start < end_s for start in starts)
    return range(first, max(first + 1, stop))


def chunks_to_fetch(chunks: list[Chunk], start_s: float, end_s: float | None, window: WindowConfig) -> list[Chunk]:
    """Return the chunks that may be read for a clip: those of `chunks_in` and what may be needed beside them."""
    needed = chunks_in(chunks, start_s, end_s)
    is_first_late = start_s - chunks[needed.start].start_s < _LATE_S
    # Frames that are counted at another rate than the video's may go on in the chunk behind.
    return chunks[max(0, needed.start - is_first_late) : needed.stop + (window.fps is not None)]


class ChunkedVideo:
    """A folder of chunks as one video, or a file as a video of one chunk; the counterpart of `SourceVideo`.

    Times count from the start of the first chunk, and within a chunk from its own time 0. Chunks are opened when a clip
    needs them. Raises DecodeError for a folder without chunks.
    """

    def __init__(
        self, path: str | Path, config: DecodeConfig | None = None, window: WindowConfig | None = None
    ) -> None:
        self._config, self._window = config or DecodeConfig(), window or WindowConfig()
        self._is_folder = os.path.isdir(path)
        self._folder = str(path) if self._is_folder else os.path.dirname(path)
        self._chunks = order_chunks(os.listdir(path)) if self._is_folder else [Chunk(0.0, os.path.basename(path))]
        self._open: dict[int, SourceVideo | None] = {}
        self._lengths_s: dict[int, float] = {}

    def __enter__(self) -> "ChunkedVideo":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for source in self._open.values():
            if source is not None:
                source.close()
        self._open.clear()

    @property
    def info(self) -> VideoInfo:
        """Facts of the whole video: those of its first chunk with pictures, and how long all of them are."""
        end_s = self.end_of(self._chunks[0].start_s, None)
        first = next(source for number in range(len(self._chunks)) if (source := self._source(number)))
        num_frames = round(first.info.fps * end_s)  # the others are not opened to count theirs
        return replace(first.info, duration_s=end_s, num_frames=num_frames) if self._is_folder else first.info

    def covers(self, start_s: float, end_s: float) -> bool:
        """Whether a clip is all of a file; chunks are not put together as they are."""
        source = None if self._is_folder else self._source(0)
        return source is not None and source.covers(start_s, end_s)

    def end_of(self, start_s: float, end_s: float | None) -> float:
        """Return where a clip that is asked for ends: with the video at the latest.

        Raises DecodeError for a clip that starts after it, or needs a chunk that is missing, empty or damaged.
        """
        if start_s < self._chunks[0].start_s:
            raise _missing(start_s, self._chunks[0].start_s)
        for number in chunks_in(self._chunks, start_s, end_s):
            stop_s = self._chunks[number].start_s + self._length_s(number)
            if number + 1 < len(self._chunks):
                self._check_next(number, stop_s, end_s)
                continue
            if start_s >= stop_s:
                raise starts_too_late(start_s, stop_s)
            return stop_s if end_s is None else min(end_s, stop_s)
        assert end_s is not None  # else the last chunk is one of them
        return end_s

    def cut(self, start_s: float, end_s: float) -> bytes:
        """Return the frames of [start_s, end_s) as `SourceVideo.cut` does; of a `WindowConfig` with fps those that are
        counted. Raises DecodeError as `end_of` does, and where no frame can be decoded.
        """
        if not 0 <= start_s < end_s:
            what = "the clip's end must come after its start, and both from 0 on"
            raise DecodeError(what, got=f"[{start_s}, {end_s}) s")
        end_s = self.end_of(start_s, end_s)
        pieces = self._pieces(start_s, end_s)
        if not pieces:
            raise DecodeError("the clip holds no picture", got=f"[{start_s}, {end_s}) s")
        begin_s = self._time_of(*pieces[0][:2])
        if self._window.fps:
            start_s, end_s = begin_s, self._time_of(pieces[-1][0], pieces[-1][2]) + 1 / self._opened(pieces[-1][0]).fps
        first = self._opened(pieces[0][0])
        frames = self._frames(pieces, Deadline.after(self._config.timeout_s))
        with decode_errors():
            size = first.info.width, first.info.height
            return encode_frames(frames, max(start_s, begin_s), end_s, size=size, fps=first.fps)

    def num_frames_in(self, start_s: float, end_s: float) -> int:
        """Return how many frames a cut has if all of them decode."""
        return sum(last - first + 1 for _, first, last in self._pieces(start_s, end_s))

    def frames(self, deadline: Deadline) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (timestamp_s, frame as it is coded) for all frames that decode."""
        yield from self._frames(self._shown(self._chunks[0].start_s, self.info.duration_s), deadline)

    def _pieces(self, start_s: float, end_s: float) -> list[tuple[int, int, int]]:
        return self._counted(start_s, end_s) if self._window.fps else self._shown(start_s, end_s)

    def _shown(self, start_s: float, end_s: float) -> list[tuple[int, int, int]]:
        """Return (chunk, first frame, last frame) of what is shown in [start_s, end_s)."""
        pieces = []
        for number in chunks_in(self._chunks, start_s, end_s):
            source = self._source(number)
            from_s = self._chunks[number].start_s
            stop_s = min(end_s, self._chunks[number + 1].start_s) if number + 1 < len(self._chunks) else end_s
            if source is None:
                continue
            late_s = source.info.first_frame_s - max(0.0, start_s - from_s)
            if not pieces and 0 < late_s <= _LATE_S:
                pieces += self._last_of(number - 1)
            if source.info.first_frame_s < stop_s - from_s:
                pieces.append((number, *source.shown_in(max(0.0, start_s - from_s), stop_s - from_s)))
        return pieces

    def _last_of(self, number: int) -> list[tuple[int, int, int]]:
        """Return the last frame of a chunk, if it is there and goes on into the next one."""
        if number < 0:
            return []
        try:
            source = self._source(number)
            self._check_next(number, self._chunks[number].start_s + self._length_s(number), None)
        except DecodeError:
            return []
        return [(number, source.info.num_frames - 1, source.info.num_frames - 1)] if source is not None else []

    def _counted(self, start_s: float, end_s: float) -> list[tuple[int, int, int]]:
        """Return (chunk, first frame, last frame) of the frames that the release would count, rounding half to even."""
        assert self._window.fps is not None
        number = chunks_in(self._chunks, start_s, end_s)[0]
        skipped = round((start_s - self._chunks[number].start_s) * self._window.fps)
        wanted = max(int((end_s - start_s) * self._window.fps), self._window.min_frames)
        pieces, asked, num_there = [], skipped, 0
        while wanted > 0 and number < len(self._chunks):
            source = self._source(number)
            num_frames = source.info.num_frames if source is not None else 0
            num_there += num_frames
            taken = min(wanted, num_frames - skipped)
            if taken > 0:
                pieces.append((number, skipped, skipped + taken - 1))
                wanted -= taken
            skipped = max(0, skipped - num_frames)
            if wanted > 0 and number + 1 < len(self._chunks):
                self._check_next(number, self._chunks[number].start_s + self._length_s(number), None)
            number += 1
        if not pieces:
            got = f"frame {asked} at {self._window.fps:g} frames/s from the chunk of {start_s:g} s on"
            raise DecodeError("the clip starts after the last frame that is counted", got=got, limit=num_there)
        return pieces

    def _frames(self, pieces: list[tuple[int, int, int]], deadline: Deadline) -> Iterator[tuple[float, VideoFrame]]:
        earliest_s = -1.0
        for number, first, last in pieces:
            for timestamp_s, frame in self._opened(number).frames(deadline, first, last):
                timestamp_s = max(earliest_s, self._chunks[number].start_s + timestamp_s)
                yield timestamp_s, frame
                earliest_s = timestamp_s + _SHORTEST_S

    def _check_next(self, number: int, stop_s: float, end_s: float | None) -> None:
        """Raise DecodeError where a clip up to `end_s` needs what lies between two chunks, or both have it."""
        chunk, following = self._chunks[number], self._chunks[number + 1]
        if stop_s > following.start_s + _CHUNK_TOLERANCE_S:
            got = f"{chunk.name} of {stop_s - chunk.start_s:.1f} s, and {following.name}"
            raise DecodeError(
                "the chunks of the video overlap: each is named by the second in which it starts", got=got
            )
        if stop_s < following.start_s - _CHUNK_TOLERANCE_S and (end_s is None or end_s > stop_s):
            raise _missing(stop_s, following.start_s)

    def _length_s(self, number: int) -> float:
        if number not in self._lengths_s:
            source = self._source(number)
            self._lengths_s[number] = source.info.duration_s if source is not None else 0.0
        return self._lengths_s[number]

    def _time_of(self, number: int, frame: int) -> float:
        return self._chunks[number].start_s + self._opened(number).time_of(frame)

    def _opened(self, number: int) -> SourceVideo:
        source = self._source(number)
        assert source is not None  # it was found to hold frames
        return source

    def _source(self, number: int) -> SourceVideo | None:
        """Return an open chunk; None where it holds no pictures. Raises DecodeError for a damaged one."""
        if number not in self._open:
            while len(self._open) >= _NUM_OPEN:
                oldest = self._open.pop(next(iter(self._open)))
                if oldest is not None:
                    oldest.close()
            name = self._chunks[number].name
            try:
                self._open[number] = SourceVideo(os.path.join(self._folder, name), self._config)
            except DecodeError as error:
                if not self._is_folder:
                    raise
                if error.what not in _NO_PICTURES:
                    raise DecodeError("a chunk of the video cannot be read", got=f"{name} ({error})") from error
                self._open[number] = None
        return self._open[number]


def _missing(from_s: float, to_s: float) -> DecodeError:
    return DecodeError("a chunk of the video is missing or empty", got=f"nothing from {from_s:.1f} s to {to_s:.1f} s")
