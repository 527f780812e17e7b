"""Splits that are drawn: by a hash of the video, so that all clips of a video are in one split on every machine."""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mama_ray.data.clip import SPLITS, normal_split
from mama_ray.errors import UserError

_WANTED = "pairs of a split and its share or number of clips, as: train 0.9 val 0.1 meta 500"
_TOLERANCE = 1e-6
# Per video of which no row names a split, in the order of its place, how many clips it has.
_CLIPS_PER_VIDEO = """
    SELECT draw_place(video_id) AS place, COUNT(DISTINCT clip_id || '/' || video) FROM rows
    GROUP BY video_id HAVING COUNT(split) = 0 ORDER BY place
"""
# Of the videos of which some rows name a split and others none: the first and the last that is named.
_NAMED = """
    SELECT video_id, MIN(split), MAX(split) FROM rows
    GROUP BY video_id HAVING COUNT(split) BETWEEN 1 AND COUNT(*) - 1
"""


@dataclass(frozen=True)
class SplitRequest:
    """What was asked for: numbers of clips are met first, shares are of the rest and sum to 1."""

    counts: dict[str, int]
    shares: dict[str, float]

    @classmethod
    def of(cls, words: Sequence[str], rest: str | None) -> "SplitRequest":
        """Read `train 0.9 val 0.1 meta 500`; without shares all that is left goes to `rest`. Raises UserError."""
        got = " ".join(words)
        if len(words) % 2:
            raise UserError("splits to draw", got=got, wanted=_WANTED)
        counts, shares = {}, {}
        for name, amount in zip(words[::2], words[1::2], strict=True):
            try:
                split = normal_split(name)
                target, value = (counts, int(amount)) if amount.isdecimal() else (shares, float(amount))
            except ValueError:
                raise UserError("splits to draw", got=got, wanted=f"{_WANTED}; splits {', '.join(SPLITS)}") from None
            if split in counts or split in shares or not value > 0:
                raise UserError("splits to draw", got=got, wanted=f"{_WANTED}; each once, more than 0")
            target[split] = value
        if not shares and rest is not None and rest not in counts:
            shares = {rest: 1.0}
        if abs(sum(shares.values()) - 1) > _TOLERANCE:
            raise UserError("splits to draw", got=f"{got}: shares sum to {sum(shares.values()):g}", wanted="a sum of 1")
        return cls(counts, shares)


class SplitDraw:
    """Which split a video belongs to: the one that other rows of it name, else the one that is drawn. Every video has a
    place from 0 to 1; a split is an interval of places."""

    def __init__(
        self,
        request: SplitRequest,
        clips_per_video: Iterable[tuple[float, int]],
        named: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        """`clips_per_video` are (place, number of clips), by place; `named` are videos with the first and the last
        split that rows of them name. Raises UserError where there are too few clips."""
        self._named = {video_id: (first, last) for video_id, first, last in named}
        self._bounds: list[tuple[float, str]] = []
        videos, last = iter(clips_per_video), -1.0
        for split, wanted in request.counts.items():
            num_clips = 0
            while num_clips < wanted:
                video = next(videos, None)
                if video is None:
                    raise UserError(
                        f"too few clips to draw the split {split}",
                        got=num_clips,
                        wanted=f"{wanted} clips, and others for what is left",
                        remedy="ask for fewer",
                    )
                last, num_clips = video[0], num_clips + video[1]
            self._bounds.append((last, split))
        start = max(last, 0.0)
        share_so_far = 0.0
        for split, share in request.shares.items():
            share_so_far += share
            self._bounds.append((start + (1 - start) * share_so_far, split))

    def split_of(self, video_id: str) -> str:
        """Return the split of a video. Raises ValueError where its rows name several."""
        if video_id in self._named:
            first, last = self._named[video_id]
            if first != last:
                raise ValueError(f"split: got none, and other rows of the video name {first} and {last}")
            return first
        place = place_of(video_id)
        return next((split for bound, split in self._bounds if place <= bound), self._bounds[-1][1])


def draw_from(database: sqlite3.Connection, request: SplitRequest) -> SplitDraw:
    """Draw for the clips of a database of rows that name no split, nor do other rows of their videos."""
    database.create_function("draw_place", 1, place_of, deterministic=True)
    return SplitDraw(request, database.execute(_CLIPS_PER_VIDEO), database.execute(_NAMED))


def place_of(video_id: str) -> float:
    """Return the place of a video, from 0 to 1."""
    return int.from_bytes(hashlib.sha256(f"split\0{video_id}".encode()).digest()[:8]) / 2**64
