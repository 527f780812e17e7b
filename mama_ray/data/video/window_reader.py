"""The frames of many windows of one video, read in one pass from front to back.

Which frames a window is shown is known from the index before anything is decoded, so every frame leaves the decoder
once, is scaled only if some window wants it, and is let go when the last window that wants it has been given out:
memory does not grow with the video. Where nothing is wanted for long, the reader goes to the next key frame. It runs
native decoders on files nobody vouches for: `guarded_windows.py` has it in a process that may die.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mama_ray.data.video.container import Deadline, DecodeError, decode_errors, open_video
from mama_ray.data.video.decode import output_size
from mama_ray.data.video.orientation import shown_size
from mama_ray.data.video.packets import decode_frames, first_packets, index_packets, seek_packets
from mama_ray.data.video.pyav_reader import RgbScaler
from mama_ray.data.video.sampled import refuse_long_frames
from mama_ray.data.video.sampling import sample_between_ends, sample_frame_indices, sample_timestamps
from mama_ray.data.video.settings import DecodeConfig

# Of frames that wait for a window: overlapping windows that want more are read in several passes.
_MOST_HELD_BYTES = 256 << 20
# Frames: some containers go to a key frame earlier than the one that is asked for, and decoders begin slowly.
_WORTH_A_SEEK = 48
_MOST_RETURNS = 64  # to a key frame in a file with a broken clock, which is read from its beginning each time
_SLACK_S = 1e-6  # a time computed as k / fps must find frame k although both are rounded


@dataclass(frozen=True)
class FramesOfWindow:
    """What is read of one window.

    Attributes:
        frames: uint8 (frames, height, width, 3), RGB, in order of presentation.
        indices: int64 (frames,), their numbers among the frames that are shown in the window, ascending; a window of a
            few frames may have one twice.
        times_s: float64 (frames,), seconds from the start of the window to each.
        num_replaced: frames that a neighbour stands in for, because they could not be decoded.
    """

    frames: np.ndarray
    indices: np.ndarray
    times_s: np.ndarray
    num_replaced: int


@dataclass(frozen=True)
class WindowRequest:
    """Which frames of each window, and how large.

    Attributes:
        num_frames: of a window; a window that has fewer gives all of its own where `rule` is "spread".
        rule: "spread", evenly over the frames of the window, as a grid's candidates; "moments", the frame that is shown
            in the middle of each of so many equal parts of its time, as a model's frames.
        size: `fit`, `short_side`, or `width` and `height`, as `VideoDecoder` takes them.
    """

    num_frames: int
    rule: Literal["spread", "moments"]
    size: Mapping[str, Any]


class WindowReader:
    """An open video, and the windows that are wanted of it; `read` gives them one after the other.

    Args:
        path: the file.
        windows: (start_s, end_s), from the container's time 0, in the order in which they are read.

    Attributes:
        num_frames, duration_s: of the video.
        num_decoded: frames that left the decoder so far, those that only others hang on included.

    Raises DecodeError where the video cannot be used.
    """

    def __init__(
        self, path: str | Path, windows: Sequence[tuple[float, float]], request: WindowRequest, config: DecodeConfig
    ) -> None:
        self._path, self._config, self._request = path, config, request
        self._files = ExitStack()
        with self._files:
            self._container, self._stream = self._files.enter_context(open_video(path, config))
            self._index = index_packets(self._container, self._stream, config, looks=True)
            self._files = self._files.pop_all()
        index = self._index
        self.num_frames, self.duration_s, self.num_decoded = index.num_frames, index.duration_s, 0
        shown = shown_size(index.width, index.height, index.pixel_aspect, index.orientation)
        width, height = output_size(shown, **request.size)
        if "fit" not in request.size:
            refuse_long_frames(width, height)
        self._scaler = RgbScaler(width, height)
        self._starts_s = [start_s for start_s, _ in windows]
        self._chosen = [self._choose(*window) for window in windows]
        most_held = _MOST_HELD_BYTES // (width * height * 3)
        self._passes = _split_into_passes([wanted for _, wanted in self._chosen], most_held)
        self._last_use: dict[int, int] = {}
        self._held: dict[int, np.ndarray] = {}
        self._next = 0
        # Number of the frame that was decoded last, and from which on wanted ones were kept: of none yet.
        self._position, self._kept_from = -1, self.num_frames
        self._tried, self._num_returns = set[int](), 0
        self._reopened = self._files.enter_context(ExitStack())
        self._deadline = Deadline.after(config.timeout_s)
        self._numbered: Iterator[tuple[int, VideoFrame]] = iter(())

    def close(self) -> None:
        """Close the file."""
        self._files.close()

    def read(self) -> FramesOfWindow:
        """Return the frames of the next window. Raises DecodeError where it cannot be read; the next one may be."""
        number, self._next = self._next, self._next + 1
        if number in self._passes:
            self._begin_pass(number)
        self._deadline.renew()
        unique = np.unique(self._chosen[number][1])
        try:
            with decode_errors():
                self._decode_up_to(unique)
            return self._collect(number, unique)
        finally:
            for frame in unique.tolist():
                if self._last_use[frame] == number:
                    self._held.pop(frame, None)

    def _choose(self, start_s: float, end_s: float) -> tuple[int, np.ndarray]:
        """Return the first frame that is shown in a window, and those that are wanted of it, ascending."""
        times = self._index.timestamps_s
        first = max(0, int(np.searchsorted(times, start_s + _SLACK_S, side="right")) - 1)
        last = max(first, int(np.searchsorted(times, end_s - _SLACK_S, side="left")) - 1)
        total = last - first + 1
        if self._request.rule == "spread":
            count = min(self._request.num_frames, total)
            return first, first + ((np.arange(count) + 0.5) * total / count).astype(np.int64)
        if self._config.sampling != "times":
            sample = sample_frame_indices if self._config.sampling == "numbers" else sample_between_ends
            return first, sample(first, last + 1, self._request.num_frames)
        # Nothing is shown before the first frame and after the last: the moments lie where there are pictures.
        begin_s = min(max(start_s, self._index.start_s), self._index.duration_s)
        moments = sample_timestamps(
            max(begin_s, min(end_s, self._index.duration_s)), self._request.num_frames, start_s=begin_s
        )
        numbers = np.searchsorted(times, moments + _SLACK_S, side="right") - 1
        return first, np.clip(numbers, first, last)

    def _begin_pass(self, number: int) -> None:
        stop = min((begin for begin in self._passes if begin > number), default=len(self._chosen))
        self._held.clear()
        self._kept_from = max(self._kept_from, self._position + 1)
        self._last_use = {frame: place for place in range(number, stop) for frame in self._chosen[place][1].tolist()}

    def _decode_up_to(self, wanted: np.ndarray) -> None:
        """Decode until all wanted frames have come or cannot come any more; keeps what this pass will want."""
        missing = wanted[~np.isin(wanted, list(self._held))] if self._held else wanted
        if not len(missing):
            return
        first, last = int(missing[0]), int(missing[-1])
        key = self._index.key_before(first, last)
        # What was passed and is not held did not decode, unless nobody wanted it then.
        can_skip = self._can_seek and first > self._position and key > self._position + _WORTH_A_SEEK
        if first < self._kept_from or can_skip:
            self._go_to(first, key)
        self._decode_to(last, missing)
        missing = missing[~np.isin(missing, list(self._held))]
        if len(missing) and self._index.mended_pts is not None and self._num_returns < _MOST_RETURNS:
            # With a broken clock frames may come before those that are shown earlier: once more from the key before.
            self._num_returns += 1
            self._go_to(int(missing[0]), self._index.key_before(int(missing[0]), int(missing[-1])))
            self._decode_to(int(missing[-1]), missing)

    def _decode_to(self, last: int, missing: np.ndarray) -> None:
        while self._position < last:
            numbered = next(self._numbered, None)
            if numbered is not None:
                self._take(*numbered)
            elif not self._goes_on(missing[missing > self._position]):
                return

    def _goes_on(self, missing: np.ndarray) -> bool:
        """Go to the key frame before what is missing, where a damaged place of the file has ended the reading."""
        key = self._index.key_before(int(missing[0]), int(missing[-1]))
        if not self._can_seek or key <= self._position or key in self._tried:
            return False
        self._tried.add(key)
        self._go_to(int(missing[0]), key)
        return True

    def _take(self, number: int, frame: VideoFrame) -> None:
        self._position = max(self._position, number)
        if number in self._last_use and number not in self._held and self._last_use[number] >= self._next - 1:
            self._held[number] = self._scaler.to_rgb(frame)

    @property
    def _can_seek(self) -> bool:
        return self._index.pts is not None and self._index.mended_pts is None

    def _go_to(self, first: int, key: int) -> None:
        """Stand before frame number `first`: at key frame number `key` where the container can go there."""
        self._kept_from, self._position = key, key - 1
        if key > 0 and self._can_seek:
            packets = seek_packets(self._container, self._stream, self._index, key)
            if packets is not None:
                self._numbered = self._number(packets, self._stream)
                head = next(self._numbered, None)
                if head is not None and head[0] <= first:  # some containers land somewhere else than they say
                    self._take(*head)
                    return
        # From the beginning, in a file opened anew: raw streams cannot even go back there.
        self._reopened.close()
        container, stream = self._reopened.enter_context(open_video(self._path, self._config))
        if self._index.mended_pts is None:
            self._kept_from, self._position = 0, -1
        self._numbered = self._number(first_packets(container, stream, self._index, key), stream)

    def _number(self, packets: Iterator[Packet], stream: VideoStream) -> Iterator[tuple[int, VideoFrame]]:
        """Yield frames with their numbers, as they decode."""
        pts = self._index.pts
        for count, frame in enumerate(decode_frames(packets, stream, self._config, self._deadline)):
            self.num_decoded += 1
            if pts is None:
                yield count, frame
            elif frame.pts is not None:
                number = int(np.searchsorted(pts, frame.pts))
                if number < len(pts) and pts[number] == frame.pts:
                    yield number, frame

    def _collect(self, number: int, unique: np.ndarray) -> FramesOfWindow:
        first, wanted = self._chosen[number]
        is_there = np.isin(unique, list(self._held))
        num_missing = int((~is_there).sum())
        if num_missing == len(unique) or num_missing > self._config.max_replaced * len(unique):
            got, limit = f"{num_missing} of {len(unique)}", f"{self._config.max_replaced:.0%}"
            raise DecodeError("too many frames of the window cannot be decoded", got=got, limit=limit)
        good = unique[is_there]
        stand_ins = {frame: int(good[np.abs(good - frame).argmin()]) for frame in unique.tolist()}
        frames = np.stack([self._held[stand_ins[frame]] for frame in wanted.tolist()])
        times_s = np.maximum(0.0, self._index.timestamps_s[wanted] - self._starts_s[number])
        return FramesOfWindow(frames, wanted - first, times_s, num_missing)


def _split_into_passes(wanted: Sequence[np.ndarray], most_held: int, begin: int = 0) -> list[int]:
    """Return the numbers of the windows at which a new pass begins, so that no pass holds more frames than that."""
    if len(wanted) < 2 or _most_held(wanted) <= most_held:
        return [begin]
    half = len(wanted) // 2
    return [
        *_split_into_passes(wanted[:half], most_held, begin),
        *_split_into_passes(wanted[half:], most_held, begin + half),
    ]


def _most_held(wanted: Sequence[np.ndarray]) -> int:
    """Return how many frames wait at a time, where windows are given out in their order."""
    reached = np.maximum.accumulate([int(frames[-1]) for frames in wanted])
    last_use = {frame: place for place, frames in enumerate(wanted) for frame in frames.tolist()}
    frames = np.array(sorted(last_use))
    comes = np.searchsorted(reached, frames)
    goes = np.array([last_use[frame] for frame in frames.tolist()])
    changes = np.zeros(len(wanted) + 1, np.int64)
    np.add.at(changes, comes, 1)
    np.add.at(changes, goes + 1, -1)
    return int(np.cumsum(changes)[: len(wanted)].max())
