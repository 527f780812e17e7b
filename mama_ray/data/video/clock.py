"""From the time stamps of packets to the times at which frames are shown, with a broken clock mended.

Recordings that were glued together, and receivers that lost their signal, leave clocks that jump, repeat or run back.
The gap is closed, as FFmpeg's command line does: what follows a break goes on where the frames before it end.
"""

from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.video.stream import VideoStream

# Containers without times of presentation: FFmpeg makes some up from the order of decoding, wrong wherever B-frames
# are.
WITHOUT_PTS = ("avi", "h264", "hevc", "m4v", "mpegvideo", "vc1", "obu")
DEFAULT_FRAME_S = 0.04  # 25 frames/s, FFmpeg's own guess, for a single frame without any timing
# FFmpeg's limits: a clock runs back by more than the first; where the format may break (transport streams), it jumps
# ahead by more than the second. A shorter gap is a picture that stays.
_BACK_S = 0.1
_AHEAD_S = 10.0
_SAME_S = 2e-6  # the container's start is rounded to microseconds


@dataclass(frozen=True)
class PacketTimes:
    """One entry per packet of the stream, in the order of the file; int64 ticks, 0 where has_ is False."""

    pts: np.ndarray
    has_pts: np.ndarray
    dts: np.ndarray
    has_dts: np.ndarray
    durations: np.ndarray
    is_key: np.ndarray
    is_hidden: np.ndarray
    """By an edit list."""

    @classmethod
    def of(cls, rows: list[tuple[int | None, int | None, int, bool, bool]]) -> "PacketTimes":
        """From (pts, dts, duration, is_key, is_hidden) of each packet."""
        pts, dts, durations, is_key, is_hidden = zip(*rows, strict=True)
        return cls(
            pts=np.array([value or 0 for value in pts], np.int64),
            has_pts=np.array([value is not None for value in pts]),
            dts=np.array([value or 0 for value in dts], np.int64),
            has_dts=np.array([value is not None for value in dts]),
            durations=np.array(durations, np.int64),
            is_key=np.array(is_key, bool),
            is_hidden=np.array(is_hidden, bool),
        )


@dataclass(frozen=True)
class FrameTimes:
    """The fields of `VideoIndex` that speak of time; one entry per presented frame, in order of presentation."""

    timestamps_s: np.ndarray
    pts: np.ndarray | None
    packet_numbers: np.ndarray
    mended_pts: np.ndarray | None
    duration_s: float


def time_frames(packets: PacketTimes, container: InputContainer, stream: VideoStream) -> FrameTimes:
    """Say when each presented frame is shown."""
    time_base = float(stream.time_base or 0)
    may_break = bool(container.format.flags & Flags.ts_discont.value)
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    frame_s = 1 / fps if fps else DEFAULT_FRAME_S
    shown = np.flatnonzero(~packets.is_hidden)
    shifts = _mending_shifts(packets, time_base, frame_s, may_break=may_break)
    start = container.start_time / 1e6 if container.start_time is not None else None
    if container.format.name in WITHOUT_PTS or not packets.has_pts[shown].all():
        return _count(packets, shown, shifts, start, time_base, frame_s, may_break=may_break)
    pts = packets.pts + shifts
    order = np.argsort(pts[shown], kind="stable")
    numbers = shown[order]
    sorted_pts, mended_pts = pts[numbers], None
    if shifts.any() or (np.diff(sorted_pts) == 0).any():
        # Frames that share a time stamp are told apart by a tick.
        ranks = np.arange(len(numbers))
        sorted_pts = np.maximum.accumulate(sorted_pts - ranks) + ranks
        mended_pts = pts.copy()
        mended_pts[numbers] = sorted_pts
    start_s = _start_s(sorted_pts[0] * time_base, start, may_break=may_break)
    timestamps_s = (sorted_pts - sorted_pts[0]) * time_base + start_s
    last_s = _last_s(packets.durations[numbers[-1]] * time_base, timestamps_s, frame_s)
    return FrameTimes(timestamps_s, sorted_pts, numbers, mended_pts, float(timestamps_s[-1] + last_s))


def _count(
    packets: PacketTimes,
    shown: np.ndarray,
    shifts: np.ndarray,
    start: float | None,
    time_base: float,
    frame_s: float,
    *,
    may_break: bool,
) -> FrameTimes:
    """Without times of presentation the k-th frame shown takes the k-th place in the order of decoding."""
    if time_base > 0 and packets.has_dts[shown].all():
        dts = np.sort(packets.dts[shown] + shifts[shown])
        timestamps_s = (dts - dts[0]) * time_base + _start_s(dts[0] * time_base, start, may_break=may_break)
    else:
        # A raw stream tells at most how long its frames stay; the rate that FFmpeg names for it is its own guess.
        told_s = float(np.median(packets.durations[shown])) * time_base
        frame_s = told_s if told_s > 0 else frame_s
        timestamps_s = np.arange(len(shown)) * frame_s
    return FrameTimes(timestamps_s, None, shown, None, float(timestamps_s[-1] + frame_s))


def _start_s(first_s: float, start: float | None, *, may_break: bool) -> float:
    """How long after the container's time 0 the first frame is shown."""
    late_s = first_s - start if start is not None else 0.0
    # Sound and picture of a broken transport stream may have clocks that know nothing of each other.
    return 0.0 if late_s < _SAME_S or (may_break and late_s > _AHEAD_S) else late_s


def _last_s(told_s: float, timestamps_s: np.ndarray, frame_s: float) -> float:
    if told_s > 0:
        return told_s
    usual_s = float(np.median(np.diff(timestamps_s))) if len(timestamps_s) > 1 else 0.0
    return usual_s if usual_s > 0 else frame_s


def _mending_shifts(packets: PacketTimes, time_base: float, frame_s: float, *, may_break: bool) -> np.ndarray:
    """Return what to add to the time stamps of each packet, int64 (packets,): zeros for a sound clock."""
    shifts = np.zeros(len(packets.pts), np.int64)
    known = np.flatnonzero(packets.has_dts)  # only they grow from packet to packet in a sound file
    if time_base <= 0 or len(known) < 2:
        return shifts
    steps_s = np.diff(packets.dts[known]) * time_base
    is_break = (steps_s < -_BACK_S) | (may_break & (steps_s > _AHEAD_S))
    if not is_break.any():
        return shifts
    # Each run of packets between two breaks is moved to where the frames of the run before it end.
    starts = np.concatenate([[0], np.flatnonzero(is_break) + 1])
    times = np.where(packets.has_pts, packets.pts, packets.dts)[known]
    firsts, lasts = np.minimum.reduceat(times, starts), np.maximum.reduceat(times, starts)
    usual = (
        round(float(np.median(steps_s[~is_break])) / time_base) if not is_break.all() else round(frame_s / time_base)
    )
    moves = np.concatenate([[0], np.cumsum(lasts[:-1] + usual - firsts[1:])])
    run_of = np.maximum(np.searchsorted(known[starts], np.arange(len(shifts)), side="right") - 1, 0)
    return moves[run_of]
