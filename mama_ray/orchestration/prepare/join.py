"""The last task of a prepare: parts become quarantine, index and summary, and the work folder goes."""

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mama_ray.data.clip import make_clip_id
from mama_ray.data.index import INDEX_NAME, INDEX_SCHEMA, clips_per_shard, write_index
from mama_ray.data.index_file import open_index
from mama_ray.data.unique_ids import hash_of_id, hashed_ids
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.inputs import read_inputs, read_summary
from mama_ray.orchestration.prepare.parts import SUMMARY_NAME, WORK_FOLDER, part_place, read_part_facts
from mama_ray.orchestration.prepare.quarantine import (
    QUARANTINE_CSV_NAME,
    QUARANTINE_NAME,
    QUARANTINE_SCHEMA,
    Reasons,
    SpreadsheetWriter,
)
from mama_ray.orchestration.prepare.repair import is_of_a_file, quarantined_rows
from mama_ray.storage.places import Place, join_uri, storage_errors

_CLAMPED = {
    "start": "with a start below 0, taken as 0",
    "end": "cut short by the end of their video",
    "frames": "without some frames, which do not decode",
}


@dataclass
class Totals:
    """Counts of a finished prepare."""

    num_clips: int = 0
    num_uncaptioned: int = 0
    num_quarantined: int = 0
    clamped: Counter = field(default_factory=Counter)
    splits: Counter = field(default_factory=Counter)
    refused_splits: dict[str, Reasons] = field(default_factory=dict)
    reasons: Reasons = field(default_factory=Reasons)
    damaged: list[str] = field(default_factory=list)
    shards: dict[str, dict[str, int]] = field(default_factory=dict)

    def refuse(self, row: dict[str, Any]) -> None:
        """Count a row of the quarantine."""
        self.num_quarantined += 1
        self.reasons.add(row["reason"])
        if row.get("split"):
            self.refused_splits.setdefault(row["split"], Reasons()).add(row["reason"])


def join_parts(
    target: str,
    names: list[str],
    *,
    mends: bool = False,
    damaged_shards_are_refused: bool = True,
    max_quarantined: int | None = None,
) -> str:
    """Write the quarantine, the index and the summary from the named parts; return the job's last line.

    With `mends` the parts come beside what the finished index and quarantine hold. Memory is one part, some row groups
    of the index, the names of the shards, and the clip_ids that several shards use. Raises UserError, with the
    quarantine written and the index as it was, when shards are damaged, when no clip is good, none of a split, or when
    too many were refused.
    """
    folder = Place.of(target)
    with storage_errors(target):
        found = [file.name.removesuffix(".parquet") for file in (folder / f"{WORK_FOLDER}/parts").files()]
        rows = sorted(name for name in found if name.startswith("rows-"))
        kept = _Kept(folder, names) if mends else None
        totals = _write_quarantine(folder, [*rows, *names], kept)
        _check(totals, folder, damaged_shards_are_refused=damaged_shards_are_refused, max_quarantined=max_quarantined)
        _write_index(folder, names, totals.shards, kept)
        summary = {
            "num_clips": totals.num_clips,
            "num_uncaptioned": totals.num_uncaptioned,
            "num_shards": len(totals.shards),
            "num_quarantined": totals.num_quarantined,
            "reasons": totals.reasons.counts,
            "damaged": totals.damaged,
            "clamped": totals.clamped,
            "inputs": _inputs_to_keep(folder, totals.shards),
        }
        (folder / SUMMARY_NAME).write_whole(json.dumps(summary, indent=1))
        (folder / WORK_FOLDER).delete_folder()
    said = [f"{totals.num_clips} clips in {len(totals.shards)} shards"]
    if totals.num_uncaptioned:
        said.append(f"{totals.num_uncaptioned} without caption")
    said += [f"{count} {_CLAMPED[name]}" for name, count in sorted(totals.clamped.items()) if count]
    if totals.num_quarantined:
        csv_path = join_uri(target, QUARANTINE_CSV_NAME)
        said.append(f"{totals.num_quarantined} quarantined ({totals.reasons}; all of them in {csv_path})")
    return f"{', '.join(said)}: index at {join_uri(target, INDEX_NAME)}"


def _inputs_to_keep(folder: Place, shards: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs for the summary; of foreign shards those that are not in the index, which lists the others."""
    inputs = read_inputs(folder)
    inputs.pop("mends", None)
    if "shards" in inputs:
        inputs["shards"] = {name: size for name, size in inputs["shards"].items() if name not in shards}
    return inputs


class _Kept:
    """What stays of a finished prepare: all but what the new parts are about."""

    def __init__(self, folder: Place, names: list[str]) -> None:
        facts = [_facts_of(folder, name) for name in names]
        self._sources = {found["source"] for found in facts if found.get("source")}
        self._clip_ids = {row["clip_id"] for found in facts for row in found["quarantine"] if is_of_a_file(row)}
        self._clip_ids |= {clip_id for found in facts for clip_id in found.get("cut", ())}
        for name, found in zip(names, facts, strict=True):
            if found["num_clips"] and not found.get("source"):
                self._clip_ids |= set(_read_part(folder, name)["clip_id"].to_pylist())
        new_shards = {shard for found in facts for shard in found["shards"]}
        self._index = open_index(folder)
        self.shards = {name: size for name, size in self._index.shard_sizes().items() if name not in new_shards}
        self.num_clips = self.num_uncaptioned = 0
        self.splits: set[str] = set()
        for table in self._tables(["shard", "split", "captions"]):
            self.num_clips += len(table)
            self.num_uncaptioned += pc.sum(pc.equal(pc.list_value_length(table["captions"]), 0)).as_py() or 0
            self.splits |= {split for split in pc.unique(table["split"]).to_pylist() if split}

    def has_refused(self, row: dict[str, Any]) -> bool:
        """Whether a row of the quarantine stays."""
        if self._sources:
            parts = (row["video"] or "").split("/")
            return not any("/".join(parts[:count]) in self._sources for count in range(1, len(parts) + 1))
        return not (is_of_a_file(row) and row["clip_id"] in self._clip_ids)

    def tables(self, columns: Sequence[str] = tuple(INDEX_SCHEMA.names)) -> Iterator[pa.Table]:
        """Yield rows of the index, one or more tables for each shard."""
        for table in self._tables(columns):
            start = 0
            for length in clips_per_shard(table):
                yield table.slice(start, length)
                start += length

    def _tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        kept = pa.array(self.shards, pa.large_string())
        for table in self._index.tables(columns):
            yield table.filter(pc.is_in(table["shard"], value_set=kept))


def _write_quarantine(folder: Place, names: list[str], kept: _Kept | None) -> Totals:
    """Write the quarantine from parts; return the totals."""
    totals = Totals()
    with ExitStack() as stack:
        stream = stack.enter_context((folder / QUARANTINE_NAME).open_whole())
        # Read to the end before the old one is replaced: what stays is read while the new one is being written.
        writer = stack.enter_context(pq.ParquetWriter(stream, QUARANTINE_SCHEMA, compression="zstd"))
        sheet = SpreadsheetWriter(stack.enter_context((folder / QUARANTINE_CSV_NAME).open_whole()))

        def write(rows: list[dict[str, Any]]) -> None:
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))
                sheet.write(rows)
            for row in rows:
                totals.refuse(row)

        if kept is not None:
            totals.shards |= kept.shards
            totals.num_clips += kept.num_clips
            totals.num_uncaptioned += kept.num_uncaptioned
            totals.splits.update(dict.fromkeys(kept.splits, 1))
            totals.clamped.update((read_summary(folder) or {}).get("clamped", {}))
            for rows in quarantined_rows(folder):
                write([row for row in rows if kept.has_refused(row)])
        for name in names:
            facts = _facts_of(folder, name)
            write(facts["quarantine"])
            totals.shards |= facts["shards"]
            if facts["damage"]:
                totals.damaged.append(facts["damage"])
            totals.num_clips += facts["num_clips"]
            totals.num_uncaptioned += facts["num_uncaptioned"]
            totals.splits.update(facts["splits"])
            totals.clamped.update(facts.get("clamped", {}))
    return totals


def _write_index(folder: Place, names: list[str], shards: dict[str, dict], kept: _Kept | None) -> None:
    """Join the parts, given in the order of their shards' names, into the index.

    A clip_id that several shards use (many corpora number their clips in each shard) stays with the first; the others
    get one made of shard and clip_id. What the index has keeps its clip_ids.
    """
    shared = _shared_ids(folder, names, kept)
    taken: set[str] = set()
    if kept is not None and shared:
        for table in kept.tables(["shard", "clip_id"]):
            taken.update(_among(table["clip_id"].to_pylist(), shared))
    old = kept.tables() if kept is not None else iter(())
    new = (table for name in names if len(table := _read_part(folder, name)))
    unique = (_with_unique_ids(table, taken, shared) for table in new)
    write_index(folder, heapq.merge(old, unique, key=lambda table: table["shard"][0].as_py()), shards)


def _shared_ids(folder: Place, names: list[str], kept: _Kept | None) -> set[int]:
    """Return the hashes of ids that must be watched: of all that would come twice, as they are or as they are made."""
    shared: set[int] = set()
    while True:
        taken: set[str] = set()
        with hashed_ids() as ids:
            for table in kept.tables(["shard", "clip_id"]) if kept is not None else ():
                ids.add(own := table["clip_id"].to_pylist())
                taken.update(_among(own, shared))
            for name in names:
                table = _read_part(folder, name, columns=["shard", "clip_id"])
                ids.add(_with_unique_ids(table, taken, shared)["clip_id"].to_pylist())
            found = ids.repeated() - shared
        if not found:
            return shared
        shared |= found


def _among(clip_ids: list[str], shared: set[int]) -> list[str]:
    return [clip_id for clip_id in clip_ids if hash_of_id(clip_id) in shared] if shared else []


def _facts_of(folder: Place, name: str) -> dict[str, Any]:
    facts = read_part_facts(folder, name)
    if facts is None:
        raise UserError("a part of the prepare is gone or not whole", got=f"{part_place(folder, name)}")
    return facts


def _read_part(folder: Place, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    with part_place(folder, name).open_file() as file:
        return pq.read_table(file, columns=columns)


def _with_unique_ids(table: pa.Table, taken: set[str], shared: set[int]) -> pa.Table:
    """Give rows other ids where theirs are taken; `taken` holds those alone whose hash is among the `shared` ones."""
    if not shared:
        return table
    clip_ids = table["clip_id"].to_pylist()
    for position, shard in enumerate(table["shard"].to_pylist()):
        while clip_ids[position] in taken:
            clip_ids[position] = make_clip_id(f"{shard}/{clip_ids[position]}", 0, None)
        taken.update(_among([clip_ids[position]], shared))
    return table.set_column(table.column_names.index("clip_id"), "clip_id", pa.array(clip_ids, pa.string()))


def _check(totals: Totals, folder: Place, *, damaged_shards_are_refused: bool, max_quarantined: int | None) -> None:
    """Raise UserError for a result that is of no use, or that the user did not want."""
    see = f"see {folder / QUARANTINE_CSV_NAME}"
    if totals.damaged and damaged_shards_are_refused:
        shown = ", ".join(totals.damaged[:20]) + (" ..." if len(totals.damaged) > 20 else "")
        remedy = "mend or remove them, or set damaged_shards to quarantine; the others are not read again"
        raise UserError(f"{len(totals.damaged)} shards are damaged: {shown}", remedy=remedy)
    if not totals.num_clips:
        (folder / WORK_FOLDER).delete_folder()  # the inputs will be others: nothing here is of use
        reasons = totals.reasons if totals.num_quarantined else "no video in any shard"
        raise UserError(f"no clip is usable: {reasons}", remedy=see)
    lost = {split: reasons for split, reasons in totals.refused_splits.items() if not totals.splits[split]}
    if lost:
        raise UserError(
            "all clips of a split were refused",
            got="; ".join(f"{split} ({reasons})" for split, reasons in lost.items()),
            wanted="at least one good clip in every split that is named",
            remedy=f"{see}; mend the videos and start again, or leave the split out of the table",
        )
    if max_quarantined is not None and totals.num_quarantined > max_quarantined:
        raise UserError(
            "too many clips were refused",
            got=f"{totals.num_quarantined} ({totals.reasons})",
            wanted=f"at most {max_quarantined}",
            remedy=f"{see}; a larger max_quarantined takes the finished shards",
        )
