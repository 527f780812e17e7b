"""Charades-Ego's official files: the actions of each first-person video, and the names of the 157 classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mama_ray.data.benchmarks.official_csv import (
    official_reader,
    parse_whole,
    read_official,
    refuse_other_split,
    refuse_pickle,
    require_unique,
)
from mama_ray.data.benchmarks.rows import Row, Split, make_row
from mama_ray.errors import UserError

_FIRST_PERSON = "EGO"  # ends the id of every first-person video


@dataclass(frozen=True)
class LabelledVideo:
    """A video with its (class, start_s, end_s); a class may come several times, and there may be none."""

    video_id: str
    actions: tuple[tuple[int, float, float], ...]
    length_s: float

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes, each once, ascending."""
        return tuple(sorted({number for number, _, _ in self.actions}))


@official_reader
def read_class_texts(path: Path) -> tuple[str, ...]:
    """Return the texts of Charades_v1_classes.txt, `c000 text`, up to the first comma as LaViLa's release has them.

    UserError unless the classes are numbered from 0 without a gap.
    """
    refuse_pickle(path)
    texts = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()):
        name, _, text = line.strip().partition(" ")
        if name != f"c{number:03d}" or not text.strip():
            raise UserError(f"line {number + 1} of {path.name}", got=line, wanted=f"c{number:03d} and a text")
        texts.append(text.partition(",")[0].strip())
    if not texts:
        raise UserError(f"{path.name} has no classes", wanted="Charades_v1_classes.txt")
    return tuple(texts)


@official_reader
def read_videos(path: Path, split: Split, *, num_classes: int | None = None) -> list[LabelledVideo]:
    """Return the videos of CharadesEgo_v1_{train,test}_only1st.csv in file order.

    Raises UserError for third-person videos, a file of another split, an id that comes twice, a class beyond
    `num_classes` and the first row that has another form.
    """
    rows = read_official(path, ("id", "actions", "length"))
    refuse_other_split(path, split, count=len(rows))
    require_unique(path, [row["id"] for row in rows], "video")
    third = [row["id"] for row in rows if not row["id"].endswith(_FIRST_PERSON)]
    if third:
        got = f"{len(third)} third-person videos, {third[0]}"
        raise UserError(f"{path.name} is not of first-person videos", got=got, wanted="a file ..._only1st.csv")
    videos = []
    for number, row in enumerate(rows, 2):
        try:
            actions = tuple(_action(part) for part in row["actions"].split(";") if part.strip())
            videos.append(LabelledVideo(row["id"], actions, _seconds(row["length"])))
        except ValueError as error:
            raise UserError(f"line {number} of {path.name}", got=f"{row['id']}: {error}") from None
    for video in videos:
        if num_classes is not None and video.classes and video.classes[-1] >= num_classes:
            got = f"c{video.classes[-1]:03d} of video {video.video_id}"
            raise UserError("a class is missing from the list", got=got, wanted=f"one of {num_classes} classes")
    return videos


def _action(text: str) -> tuple[int, float, float]:
    name, start, end = text.split()
    if not name.startswith("c"):
        raise ValueError(f"{name!r}, wanted a class such as c092")
    return parse_whole(name[1:]), _seconds(start), _seconds(end)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r}, wanted seconds")
    return seconds


def read_charades_ego(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return a row for each whole video, without captions: labels are of the annotations, not of the clips."""
    return [
        make_row(f"{video.video_id}.mp4", video.video_id, [], split) | {"clip_id": video.video_id}
        for video in read_videos(annotations, split)
    ]


def read_charades_ego_clips(annotations: Path, captions: Path | None = None, split: Split = "train") -> list[Row]:
    """Return a row for each action of each video, trimmed to it, with its class text: what LaViLa fine-tunes on.

    captions: Charades_v1_classes.txt. Actions that end before they begin, or behind the video, are cut or left out.
    """
    if captions is None:
        raise UserError("Charades-Ego's actions have numbers for names", wanted="--captions Charades_v1_classes.txt")
    texts = read_class_texts(captions)
    return [
        row for video in read_videos(annotations, split, num_classes=len(texts)) for row in _clips(video, texts, split)
    ]


def _clips(video: LabelledVideo, texts: Sequence[str], split: Split) -> list[Row]:
    rows = []
    for number, start_s, end_s in sorted(set(video.actions)):
        start_s, end_s = max(0.0, start_s), min(end_s, video.length_s)
        if end_s > start_s:
            row = make_row(f"{video.video_id}.mp4", video.video_id, [texts[number]], split)
            rows.append(row | {"start_s": start_s, "end_s": end_s})
    return rows
