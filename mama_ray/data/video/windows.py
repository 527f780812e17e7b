"""Which seconds of a long video get a caption: the windows that it is narrated in, each a clip of its own.

Pure functions of times. Windows are laid on whole microseconds, so that a plan is the same on every machine and none
reaches by rounding into what a human has narrated. LaViLa (CVPR 2023) narrates what nobody has; its generator was not
released. Consecutive windows of one second are what those who use it on long videos take.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import Field

from mama_ray.config import Config
from mama_ray.data.clip import make_clip_id
from mama_ray.errors import UserError

# EgoVLP's alpha: the mean over all videos of Ego4D of the mean gap between the narrations of one.
EGO4D_ALPHA_S = 4.9
_US = 1_000_000
_FAR_S = 1e9  # past the end of any video

Times = tuple[float, float]


class WindowPlanConfig(Config):
    """Which windows a video is narrated in."""

    window_s: float = Field(default=1.0, ge=0.001, le=1e6)
    """Seconds of a window."""

    stride_s: float | None = Field(default=None, ge=0.001, le=1e6)
    """Seconds from the start of one window to that of the next; null is window_s. Less makes them overlap, more leaves
    gaps."""

    cover: Literal["all", "uncovered", "human"] = "all"
    """all: the whole video; uncovered: what no human clip covers, to which no window reaches; human: the human clips
    themselves, for more captions of them."""

    alpha_s: float | None = Field(default=EGO4D_ALPHA_S, ge=1e-6, le=1e6)
    """How wide the clip of a narration is that has a moment alone: the mean gap between the narrations of its video,
    divided by this; null is the mean of those gaps over all videos that are given."""

    max_windows: int = Field(default=100_000, ge=1)
    """Most windows of one video; more are refused before anything is decoded."""


@dataclass(frozen=True)
class Window:
    """[start_s, end_s) of a video; its clip_id is made of both and of the video's id."""

    video_id: str
    start_s: float
    end_s: float

    @property
    def clip_id(self) -> str:
        """Return the name that the same window of the same video always has."""
        return make_clip_id(self.video_id, self.start_s, self.end_s)


def plan_windows(
    video_id: str,
    duration_s: float,
    config: WindowPlanConfig,
    *,
    human: Sequence[Times] = (),
    scenes: Sequence[tuple[float, float | None]] = (),
) -> list[Window]:
    """Return the windows of a video in the order of their starts, no two alike.

    duration_s: the video's real length, where the last window ends at the latest. What is left of it, or of a stretch
    that is narrated, is a shorter window if it is at least half of one; a shorter video is one window as it is.
    human: (start_s, end_s) of human clips. scenes: those of `find_scenes`; no window crosses from one to the next.
    Raises UserError where there would be more than `max_windows`.
    """
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"duration_s: got {duration_s}, wanted more than 0 s")
    end = math.floor(duration_s * _US)
    clips = _inside(human, end)
    if config.cover == "human":
        spans = sorted(set(clips))
        _check_number(video_id, len(spans), duration_s, config)
    else:
        stretches = _cut_at_scenes(_between(clips, end) if config.cover == "uncovered" else [(0, end)], scenes)
        length, stride = round(config.window_s * _US), round((config.stride_s or config.window_s) * _US)
        _check_number(video_id, sum(_count(a, b, length, stride) for a, b in stretches), duration_s, config)
        spans = [span for stretch in stretches for span in _lay(*stretch, length, stride)]
        if not spans and stretches == [(0, end)]:
            spans = stretches
    return [Window(video_id, start / _US, stop / _US) for start, stop in spans if stop > start]


def windows_of_moments(timestamps_s: Iterable[float], alpha_s: float | None = EGO4D_ALPHA_S) -> list[Times]:
    """Return a clip around each narration of a video, in their order, by EgoVLP's rule (NeurIPS 2022).

    It is [t - beta / 2 alpha, t + beta / 2 alpha] with beta the mean gap between the video's narrations. A ratio is
    read as seconds there, so that an average clip lasts a second. One narration alone, or all at the same moment,
    have no gap: alpha stands in for beta. Clips may begin before 0; what lays windows clips them to the video.
    """
    times = [float(moment) for moment in timestamps_s]
    beta_s = mean_gap(times)
    half_s = 0.5 if beta_s is None or alpha_s is None else min(beta_s / (2 * alpha_s), _FAR_S)
    return [(moment - half_s, moment + half_s) for moment in times]


def mean_gap(timestamps_s: Sequence[float]) -> float | None:
    """Return the mean gap between moments in seconds; None where there is no gap."""
    if len(timestamps_s) < 2:
        return None
    return (max(timestamps_s) - min(timestamps_s)) / (len(timestamps_s) - 1) or None


def mean_alpha(videos: Iterable[Sequence[float]]) -> float | None:
    """Return the mean over videos of the mean gap between their narrations; None where no video has a gap."""
    gaps = [gap for moments in videos if (gap := mean_gap(moments)) is not None]
    return math.fsum(gaps) / len(gaps) if gaps else None


def _inside(human: Sequence[Times], end: int) -> list[tuple[int, int]]:
    """Return human clips in microseconds, rounded outwards, as far as they lie in the video."""
    clips = []
    for start_s, end_s in human:
        if not (math.isfinite(start_s) and math.isfinite(end_s)):
            raise ValueError(f"human clip: got [{start_s}, {end_s}) s, wanted finite seconds")
        # What is far beyond any video is cut first: as a number of microseconds it might not be finite.
        start, stop = max(0, math.floor(min(start_s, _FAR_S) * _US)), min(end, math.ceil(min(end_s, _FAR_S) * _US))
        if start < stop:
            clips.append((start, stop))
    return clips


def _between(clips: Iterable[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """Return the stretches of [0, end) that no clip touches."""
    stretches, begin = [], 0
    for start, stop in sorted(clips):
        if start > begin:
            stretches.append((begin, start))
        begin = max(begin, stop)
    return [*stretches, (begin, end)] if begin < end else stretches


def _cut_at_scenes(
    stretches: list[tuple[int, int]], scenes: Sequence[tuple[float, float | None]]
) -> list[tuple[int, int]]:
    """Cut stretches at the beginnings and ends of scenes; what lies between scenes is narrated, too."""
    bounds = sorted({round(moment * _US) for scene in scenes for moment in scene if moment})
    parts = []
    for start, stop in stretches:
        inside = [bound for bound in bounds if start < bound < stop]
        parts += pairwise([start, *inside, stop])
    return parts


def _count(start: int, stop: int, length: int, stride: int) -> int:
    """Return the number of windows of a stretch: those that begin before less than half of one is left."""
    least = -(-length // 2)
    return max(0, (stop - start - least) // stride + 1)


def _lay(start: int, stop: int, length: int, stride: int) -> Iterable[tuple[int, int]]:
    begins = range(start, start + stride * _count(start, stop, length, stride), stride)
    return ((begin, min(begin + length, stop)) for begin in begins)


def _check_number(video_id: str, num_windows: int, duration_s: float, config: WindowPlanConfig) -> None:
    if num_windows > config.max_windows:
        raise UserError(
            "a video has too many windows",
            got=f"{num_windows} windows in {duration_s:.1f} s of {video_id}",
            wanted=f"at most {config.max_windows}",
            remedy="raise windows.window_s or windows.stride_s, or windows.max_windows if so many are wanted",
        )
