"""Which captions, or whole clips, a training leaves out: `exclude.csv`, written by an audit or by hand.

A row is a clip_id and, where one caption of it is meant, its caption_id: 16 digits of the hash of its text. `reason`
and `caption` are for people; other columns are passed over. No cell begins as a formula of a spreadsheet does, and an
id that one would take for a formula, a number or a date has an apostrophe before it: a list that was opened there and
kept still has its ids.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.clip import check_clip_id
from mama_ray.data.spreadsheets import inert_cell
from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

EXCLUDE_NAME = "exclude.csv"
_COLUMNS = ("clip_id", "caption_id", "reason", "caption")
_CAPTION_ID = re.compile(r"[0-9a-f]{16}")
_MAX_BYTES = 1 << 28  # a few million rows
_NO_TEXT = re.compile(r"-.*|\d[\dEe-]*")
_APOSTROPHE = "'"  # in no id


@dataclass(frozen=True)
class Exclusion:
    """A caption of a clip, or with caption_id "" the whole clip, that is not to be learned from."""

    clip_id: str
    caption_id: str = ""
    reason: str = ""
    caption: str = ""


class ExclusionCounts(NamedTuple):
    """What was taken away."""

    clips: int
    captions: int


def caption_id(text: str) -> str:
    """Return what names a caption among those of its clip."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def exclusions_to_csv(exclusions: Iterable[Exclusion]) -> str:
    """Return the file: UTF-8 with its mark, as spreadsheets want it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for one in exclusions:
        ids = (f"{_APOSTROPHE}{own}" if _NO_TEXT.fullmatch(own) else own for own in (one.clip_id, one.caption_id))
        writer.writerow([*ids, inert_cell(one.reason), inert_cell(one.caption)])
    return "\ufeff" + text.getvalue()


def read_exclusions(place: Place) -> list[Exclusion]:
    """Read the file; UserError, which names the line, for what is no list of clips."""
    return list(iterate_exclusions(place))


def iterate_exclusions(place: Place) -> Iterator[Exclusion]:
    """Yield what `read_exclusions` returns; memory is twice that of the file."""
    with storage_errors(place.uri):
        try:
            data = with_retries(lambda: place.read_bytes(_MAX_BYTES))
        except FileNotFoundError as error:
            raise UserError("no list of clips to exclude", got=place) from error
    try:
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="\n")
        reader = csv.DictReader(text, strict=True)
        if "clip_id" not in (reader.fieldnames or ()):
            raise UserError(f"{place} lists no clips", got=reader.fieldnames, wanted="a CSV with the column clip_id")
        for row in reader:
            yield _exclusion(row, f"{place}, line {reader.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError("not a CSV in UTF-8", got=f"{place} ({error})") from error


def _exclusion(row: dict, where: str) -> Exclusion:
    clip_id, own_id = ((row.get(name) or "").removeprefix(_APOSTROPHE) for name in ("clip_id", "caption_id"))
    try:
        check_clip_id(clip_id)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if own_id and not _CAPTION_ID.fullmatch(own_id):
        raise UserError(f"{where}: caption_id", got=own_id, wanted="16 digits 0-9 a-f, or nothing for the whole clip")
    return Exclusion(clip_id, own_id, row.get("reason") or "", row.get("caption") or "")


def hash_exclusions(exclusions: Sequence[Exclusion]) -> str:
    """Return the SHA-256 of what is excluded, whatever the order and the reasons."""
    lines = sorted({f"{one.clip_id}\0{one.caption_id}\n" for one in exclusions})
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def leave_out(clips: pa.Table, exclusions: Sequence[Exclusion]) -> tuple[pa.Table, ExclusionCounts]:
    """Return rows of the index, with clip_id and captions, without the clips and captions that are excluded.

    A clip may keep its row without any caption: whether it is of use then is for others to say.
    """
    clips, keep, counts = mark_excluded(clips, exclusions)
    return clips if keep.all() else clips.filter(pa.array(keep)), counts


def mark_excluded(clips: pa.Table, exclusions: Sequence[Exclusion]) -> tuple[pa.Table, np.ndarray, ExclusionCounts]:
    """Return the clips without the captions that are excluded, and bool (clips,) of those that are not excluded."""
    keep = np.ones(len(clips), bool)
    if not exclusions or not len(clips):
        return clips, keep, ExclusionCounts(0, 0)
    listed = pa.array([one.clip_id for one in exclusions]).cast(clips.schema.field("clip_id").type)
    places = pc.fill_null(pc.index_in(listed, value_set=clips["clip_id"].combine_chunks()), -1).to_pylist()
    wanted: dict[int, set[str]] = {}
    for place, one in zip(places, exclusions, strict=True):
        if place >= 0 and one.caption_id:
            wanted.setdefault(place, set()).add(one.caption_id)
        elif place >= 0:
            keep[place] = False
    captions, num_captions = _without(clips["captions"].combine_chunks(), wanted)
    clips = clips.set_column(clips.schema.get_field_index("captions"), "captions", captions)
    return clips, keep, ExclusionCounts(int((~keep).sum()), num_captions)


def sum_counts(counts: Sequence[ExclusionCounts]) -> dict[str, int]:
    """Return what was taken away of several tables."""
    return {name: sum(getattr(one, name) for one in counts) for name in ExclusionCounts._fields}


class Listed(Protocol):
    """A list of exclusions, in whatever form."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Exclusion: ...


def require_known(source: str | None, exclusions: Listed, counts: Mapping[str, int]) -> None:
    """Raise UserError where a list took nothing away: it is that of other clips."""
    if len(exclusions) and not any(counts.values()):
        raise UserError(
            f"{source} names no clip and no caption of these",
            got=f"{len(exclusions)} rows, the first of clip {exclusions[0].clip_id}",
            remedy="give the list that was made for these shards, or leave data.exclude out",
        )


def _without(captions: pa.ListArray | pa.LargeListArray, wanted: dict[int, set[str]]) -> tuple[pa.Array, int]:
    """Return the lists without the captions of the given ids by row, and how many those were."""
    if not wanted:
        return captions, 0
    flat, offsets = captions.flatten(), captions.offsets.to_numpy() - captions.offsets[0].as_py()
    keep = np.ones(len(flat), bool)
    for row, ids in wanted.items():
        for place in range(offsets[row], offsets[row + 1]):
            keep[place] = caption_id(flat[place]["text"].as_py()) not in ids
    ends = np.concatenate([[0], np.cumsum(keep)])[offsets]
    kind = pa.int64() if pa.types.is_large_list(captions.type) else pa.int32()
    return type(captions).from_arrays(pa.array(ends, kind), flat.filter(pa.array(keep))), int((~keep).sum())
