"""Rows that are cut into scenes on request: whole videos of which nothing is said yet."""

from collections.abc import Sequence
from dataclasses import replace

from mama_ray.data.annotations import Annotation
from mama_ray.data.clip import make_clip_id


def can_be_cut(row: Annotation) -> bool:
    """Whether a row is a whole video without captions and questions: those are true of the video, not of a scene."""
    is_whole = row.start_s == 0 and row.end_s is None
    return is_whole and not (row.captions or row.questions or row.truth)


def rows_of_scenes(row: Annotation, scenes: Sequence[tuple[float, float | None]]) -> list[Annotation]:
    """Return a row for each (start_s, end_s); the whole video stays the row that it is."""
    return [
        row
        if end_s is None
        else replace(row, clip_id=make_clip_id(row.clip_id, start_s, end_s), start_s=start_s, end_s=end_s)
        for start_s, end_s in scenes
    ]
