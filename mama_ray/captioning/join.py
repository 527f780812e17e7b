"""Joins caption tables to clips: the captions of a table become captions of the very videos they were written from.

A row belongs to a clip by `clip_id` and by the hash of its video, or of what that was before it was made smaller.
Everything is done on columns, a bounded number of
rows at a time: what grows with the corpus is its captions alone.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.errors import UserError

COLUMNS = ("clip_id", "video_sha256", "caption", "source", "flags", "error")
# Arrow builds the hash table of all clips for each look-up: few look-ups of many rows, some 100 MiB of them.
_ROWS_PER_LOOKUP = 1 << 18


@dataclass(frozen=True)
class TableUse:
    """What became of the rows of one table.

    Attributes:
        used: rows that are captions of the clips now.
        flagged: rows left out because of an excluded flag.
        errors: rows without a caption.
        other_clips: rows of clips that are not among these.
        sha256: of the used captions with their clips and sources, in their order: names what was taken from the table.
    """

    used: int
    flagged: int
    errors: int
    other_clips: int
    sha256: str


def join_captions(
    clips: pa.Table,
    tables: Mapping[str, Iterable[pa.Table]],
    *,
    exclude_flags: Sequence[str],
    rows_per_lookup: int = _ROWS_PER_LOOKUP,
) -> tuple[pa.Table, dict[str, TableUse]]:
    """Append the captions of tables to the captions of their clips, in the order of tables, files and rows.

    Args:
        clips: rows of the index, with clip_id, sha256 and captions; with source_sha256 captions of the originals of
            clips that were made smaller are theirs, too.
        tables: by name, the parts of each table in order, with COLUMNS.
        exclude_flags: rows with one of these flags are left out.
        rows_per_lookup: rows of a table in memory at a time, in whole parts; changes nothing but time.

    Returns the clips with their captions in 64-bit Arrow lists, and what was used of each table. Raises UserError for
    a table that was written from other videos and for one of which nothing can be used.
    """
    uses, chosen = {}, []
    for name, parts in tables.items():
        captions, uses[name] = _choose(clips, name, _in_batches(parts, rows_per_lookup), exclude_flags)
        chosen += captions
    if not chosen:
        return clips, uses
    captions = append_captions(clips["captions"].combine_chunks(), chosen)
    return clips.set_column(clips.schema.get_field_index("captions"), "captions", captions), uses


class CaptionUse:
    """Takes the rows of one table, some at a time, and counts what becomes of them."""

    def __init__(self, name: str, exclude_flags: Sequence[str]) -> None:
        self._name, self._exclude_flags = name, list(exclude_flags)
        self._counts = dict.fromkeys(("used", "flagged", "errors", "other_clips"), 0)
        self._digest = hashlib.sha256()

    def take(self, part: pa.Table, rows: pa.Array | pa.ChunkedArray) -> tuple[pa.Table, np.ndarray]:
        """Return the captions of clips with the row of each, and bool (captions,) of those that are used.

        rows: of the clip of each row of `part`, null where there is none.
        """
        counts, is_ours = self._counts, pc.is_valid(rows)
        counts["other_clips"] += len(part) - _count(is_ours)
        part = part.append_column("row", rows).filter(is_ours)
        has_caption = pc.and_(pc.is_null(part["error"]), pc.is_valid(part["caption"]))
        counts["errors"] += len(part) - _count(has_caption)
        part = part.filter(has_caption)
        has_flag = _has_flag(part["flags"].combine_chunks(), self._exclude_flags)
        counts["flagged"] += int(has_flag.sum())
        counts["used"] += int((~has_flag).sum())
        _add_to_digest(self._digest, part.filter(pa.array(~has_flag)))
        return part, ~has_flag

    def result(self) -> TableUse:
        """Return the counts; UserError where no caption could be used."""
        if not self._counts["used"]:
            raise UserError(
                f"caption table {self._name} has no caption for these clips",
                got=", ".join(f"{count} {what.replace('_', ' ')}" for what, count in self._counts.items()),
                remedy="leave the table out, caption these shards with jobs/caption.py, or exclude fewer flags",
            )
        return TableUse(**self._counts, sha256=self._digest.hexdigest())


def _choose(
    clips: pa.Table, name: str, parts: Iterable[pa.Table], exclude_flags: Sequence[str]
) -> tuple[list[pa.Table], TableUse]:
    """Return the usable rows of one table as (row of the clip, text, source), and the count of all its rows."""
    chosen, strangers, use = [], [], CaptionUse(name, exclude_flags)
    for part in parts:
        part, is_used = use.take(part, pc.index_in(part["clip_id"], value_set=clips["clip_id"]))
        strangers.append(part.filter(pc.invert(is_of_clip(part, clips))).select(["row", "video_sha256"]))
        chosen.append(part.filter(pa.array(is_used)).select(["row", "caption", "source"]))
    others = pa.concat_tables(strangers) if strangers else None
    if others:
        first = clips.select(["clip_id", "sha256"]).take(others["row"][:1]).to_pylist()[0]
        refuse_strangers(name, len(others), first["clip_id"], others["video_sha256"][0].as_py(), first["sha256"])
    return chosen, use.result()


def is_of_clip(part: pa.Table, clips: pa.Table) -> pa.ChunkedArray:
    """Whether each row was written from the video of its clip, or from the one that this was made of.

    part: rows of a caption table with `row`, that of their clip, null for none.
    """
    columns = [name for name in ("sha256", "source_sha256") if name in clips.column_names]
    found = [pc.fill_null(pc.equal(part["video_sha256"], clips[name].take(part["row"])), False) for name in columns]
    return reduce(pc.or_, found)


def _in_batches(parts: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """Gather small parts until they are worth a look-up."""
    pending: list[pa.Table] = []
    for part in parts:
        pending.append(part.select(COLUMNS))
        if sum(map(len, pending)) >= num_rows:
            yield pa.concat_tables(pending)
            pending = []
    if any(map(len, pending)):
        yield pa.concat_tables(pending)


def _has_flag(flags: pa.ListArray, excluded: list[str]) -> np.ndarray:
    is_excluded = pc.is_in(pc.list_flatten(flags), value_set=pa.array(excluded, pa.string()))
    has_flag = np.zeros(len(flags), bool)
    has_flag[pc.filter(pc.list_parent_indices(flags), is_excluded).to_numpy(zero_copy_only=False)] = True
    return has_flag


def refuse_strangers(name: str, count: int, clip_id: str, found: str | None, ours: str) -> NoReturn:
    """Raise UserError for a table with so many captions of other videos, one of them of this clip."""
    raise UserError(
        f"caption table {name} was written from other videos than those of the shards",
        got=f"{count} captions, among them one of clip {clip_id} from video_sha256 {found}",
        wanted=f"that of the clip's video, {ours}",
        remedy="caption these shards with jobs/caption.py, or leave the table out",
    )


def _add_to_digest(digest, part: pa.Table) -> None:
    """Hash rows field by field, each ended by a zero byte, so that the cut into parts makes no difference."""
    if not len(part):
        return
    text = pa.large_string()
    empty, zero = pa.scalar("", text), pa.scalar("\0", text)
    fields = [pc.fill_null(part[name].cast(text), empty) for name in ("clip_id", "caption", "source")]
    lines = pc.binary_join_element_wise(*fields, empty, zero).combine_chunks()
    whole = pc.binary_join(pa.LargeListArray.from_arrays(pa.array([0, len(lines)], pa.int64()), lines), empty)
    digest.update(whole[0].as_buffer())


def append_captions(captions: pa.ListArray | pa.LargeListArray, chosen: list[pa.Table]) -> pa.LargeListArray:
    """Return the lists with the chosen texts behind those they had; `chosen` have row, caption and source."""
    flat = pc.list_flatten(captions)
    added = pa.concat_tables(chosen)
    rows = np.concatenate([pc.list_parent_indices(captions).to_numpy(), added["row"].to_numpy()]).astype(np.int64)
    # 64-bit offsets, as the index has them in memory: those of 32 bits end at 2 GiB of text, some ten million clips.
    texts = _concatenate(pc.struct_field(flat, "text"), added["caption"])
    sources = _concatenate(pc.struct_field(flat, "source"), added["source"])
    order = pa.array(np.argsort(rows, kind="stable"))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(captions)))])
    values = pa.StructArray.from_arrays([texts.take(order), sources.take(order)], ["text", "source"])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def _concatenate(earlier: pa.Array, added: pa.ChunkedArray) -> pa.LargeStringArray:
    return pa.concat_arrays([earlier.cast(pa.large_string()), *added.cast(pa.large_string()).chunks])


def _count(mask: pa.ChunkedArray) -> int:
    return pc.sum(mask).as_py() or 0
