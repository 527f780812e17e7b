"""EPIC-KITCHENS-100's official files: segments with their classes, the caption list, and the lists of classes.

Text and classes of a caption are looked up by narration_id among the segments: the caption lists' own text is shifted
against it in their last rows. The columns of frame numbers are not read, since they are of another frame rate than
some videos have; seconds are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mama_ray.data.benchmarks.official_csv import (
    official_reader,
    parse_clock,
    parse_numbers,
    parse_whole,
    read_official,
    refuse_other_split,
    require_unique,
)
from mama_ray.data.benchmarks.rows import Row, Split, make_row
from mama_ray.errors import UserError

NUM_SEGMENTS = {"train": 67_217, "test": 9_668}
NUM_CAPTIONS = {"train": 15_989, "test": 3_842}
_COLUMNS = (
    "narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "narration", "verb_class",
    "noun_class", "all_noun_classes",
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """One narrated action; `nouns` are the classes of all its nouns, `noun` that of the first."""

    narration_id: str
    participant_id: str
    video_id: str
    start_s: float
    stop_s: float
    narration: str
    verb: int
    noun: int
    nouns: tuple[int, ...]

    @property
    def action(self) -> str:
        """The action class as verb:noun, the name by which LaViLa sorts its 3,806 actions."""
        return f"{self.verb}:{self.noun}"


@dataclass(frozen=True)
class CaptionList:
    """Unique captions: the narration of each, and at which of the segments it stands."""

    texts: tuple[str, ...]
    segments: tuple[int, ...]


@official_reader
def read_segments(path: Path, split: Split) -> list[Segment]:
    """Return the segments of EPIC_100_{retrieval_train, retrieval_test, train, validation}.csv in file order.

    Raises UserError for a file of another split, a narration_id that comes twice, and the first row that is no segment.
    """
    rows = read_official(path, _COLUMNS)
    refuse_other_split(path, split, count=len(rows), official_counts=NUM_SEGMENTS)
    require_unique(path, [row["narration_id"] for row in rows], "narration_id")
    segments = []
    for number, row in enumerate(rows, 2):
        try:
            segments.append(_segment(row))
        except ValueError as error:
            raise UserError(f"line {number} of {path.name} is no segment", got=f"{error}") from None
    return segments


def _segment(row: dict[str, str]) -> Segment:
    start_s, stop_s = parse_clock(row["start_timestamp"]), parse_clock(row["stop_timestamp"])
    nouns = parse_numbers(row["all_noun_classes"])
    if stop_s <= start_s or not nouns or not row["narration"].strip():
        raise ValueError(f"{row['narration_id']}, wanted a narration, a noun and a stop behind the start")
    verb, noun = parse_whole(row["verb_class"]), parse_whole(row["noun_class"])
    names = (row["narration_id"], row["participant_id"], row["video_id"])
    return Segment(*names, start_s, stop_s, row["narration"], verb, noun, nouns)


@official_reader
def read_caption_list(path: Path, segments: Sequence[Segment]) -> CaptionList:
    """Return the captions of EPIC_100_retrieval_{train,test}_sentence.csv, each with its segment's own narration.

    UserError for a narration_id that comes twice, or that no segment has: the list is of another split then.
    """
    rows = read_official(path, ("narration_id",))
    ids = [row["narration_id"] for row in rows]
    require_unique(path, ids, "narration_id")
    places = {segment.narration_id: place for place, segment in enumerate(segments)}
    unknown = [name for name in ids if name not in places]
    if unknown:
        raise UserError(
            f"{path.name} is not of the segments' split",
            got=f"{len(unknown)} captions of other segments, {unknown[0]}",
            wanted="the caption list that belongs to the CSV of segments",
        )  # fmt: skip
    found = tuple(places[name] for name in ids)
    return CaptionList(tuple(segments[place].narration for place in found), found)


def unique_captions(segments: Sequence[Segment]) -> CaptionList:
    """Return each narration by its first occurrence, then the first of each set of classes that is not among them.

    So the official list is made, of which the last rows may stand in any order. It serves a part of a split, such as
    clips held out from train, for which there is no official one.
    """
    first: dict[str, int] = {}
    for place, segment in enumerate(segments):
        first.setdefault(segment.narration, place)
    covered = {_classes_of(segments[place]) for place in first.values()}
    places = list(first.values())
    for place, segment in enumerate(segments):
        if _classes_of(segment) not in covered:
            covered.add(_classes_of(segment))
            places.append(place)
    return CaptionList(tuple(segments[place].narration for place in places), tuple(places))


def _classes_of(segment: Segment) -> tuple[int, frozenset[int]]:
    return segment.verb, frozenset(segment.nouns)


@official_reader
def read_classes(path: Path) -> dict[int, str]:
    """Return the names of EPIC_100_{verb,noun}_classes.csv by number; UserError for a number that comes twice."""
    rows = read_official(path, ("id", "key"))
    numbers = _column(path, rows, "id")
    require_unique(path, [str(number) for number in numbers], "class")  # 7 and 07
    return {number: row["key"] for number, row in zip(numbers, rows, strict=True)}


@official_reader
def read_tail(path: Path, column: str) -> frozenset[int]:
    """Return the classes of EPIC_100_tail_{verbs,nouns}.csv, whose column is verb or noun."""
    return frozenset(_column(path, read_official(path, (column,)), column))


def _column(path: Path, rows: Sequence[dict[str, str]], column: str) -> list[int]:
    numbers = []
    for number, row in enumerate(rows, 2):
        try:
            numbers.append(parse_whole(row[column]))
        except ValueError as error:
            raise UserError(f"line {number} of {path.name}, column {column}", got=f"{error}") from None
    return numbers


@official_reader
def read_unseen(path: Path) -> frozenset[str]:
    """Return the participants of EPIC_100_unseen_participant_ids_validation.csv."""
    return frozenset(row["participant_id"] for row in read_official(path, ("participant_id",)))


def require_listed(segments: Sequence[Segment], verbs: dict[int, str], nouns: dict[int, str]) -> None:
    """Raise UserError where a segment has a verb or a noun that the lists of classes do not have."""
    for segment in segments:
        for kind, found, listed in (("verb", (segment.verb,), verbs), ("noun", (segment.noun, *segment.nouns), nouns)):
            missing = [number for number in found if number not in listed]
            if missing:
                raise UserError(
                    f"a {kind} class is missing from its list", got=f"{missing[0]} of segment {segment.narration_id}",
                    wanted=f"one of {len(listed)} classes", remedy="give the lists that belong to the annotations",
                )  # fmt: skip


def read_ek100(annotations: Path, captions: Path | None = None, split: Split = "test") -> list[Row]:
    """Return a row for each segment of a CSV: clip_id is the narration_id, the caption its narration."""
    return [
        make_row(f"{one.participant_id}/{one.video_id}.MP4", one.video_id, [one.narration], split)
        | {"clip_id": one.narration_id, "start_s": one.start_s, "end_s": one.stop_s}
        for one in read_segments(annotations, split)
    ]
