"""The last task of a prepare: parts become quarantine, index and summary, and the work folder goes."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.clip import make_clip_id
from mama_ray.data.index import INDEX_NAME, write_index
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.parts import (
    QUARANTINE_NAME,
    QUARANTINE_SCHEMA,
    SUMMARY_NAME,
    WORK_FOLDER,
    part_name,
    part_place,
    read_part_facts,
)
from mama_ray.storage.places import Place, join_uri, storage_errors

_NUM_SHOWN = 6


@dataclass
class Totals:
    """Counts of a finished prepare."""

    num_clips: int = 0
    num_shards: int = 0
    num_quarantined: int = 0
    reasons: Counter = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)


def join_parts(target: str, num_parts: int, *, damaged_shards_are_refused: bool, max_quarantined: int | None) -> str:
    """Write quarantine.parquet, the index and the summary from the parts; return the job's last line.

    Memory is one part and the clip_ids. Raises UserError, with quarantine.parquet written and no index, when shards are
    damaged, when no clip is good, or when too many were refused.
    """
    folder = Place.of(target)
    with storage_errors(target):
        parts = (folder / f"{WORK_FOLDER}/parts").files()
        found = [file.name.removesuffix(".parquet") for file in parts if file.name.endswith(".parquet")]
        rows = sorted(name for name in found if name.startswith("rows-"))
        names = [part_name(number) for number in range(num_parts)]
        totals, shards = _write_quarantine(folder, [*rows, *names])
        trouble = _trouble(totals, target, damaged_shards_are_refused=damaged_shards_are_refused)
        if trouble is not None:
            (folder / WORK_FOLDER).delete_folder()  # the inputs will be others: nothing here is of use
            raise trouble
        _check_quarantined(totals, target, max_quarantined)
        _write_index(folder, names, shards)
        summary = {**vars(totals), "inputs": (folder / f"{WORK_FOLDER}/inputs.json").read_json()}
        (folder / SUMMARY_NAME).write_whole(json.dumps(summary, indent=1))
        (folder / WORK_FOLDER).delete_folder()
    refused = f", {totals.num_quarantined} quarantined ({_reasons(totals)})" if totals.num_quarantined else ""
    return f"{totals.num_clips} clips in {totals.num_shards} shards{refused}: index at {join_uri(target, INDEX_NAME)}"


def _write_quarantine(folder: Place, names: list[str]) -> tuple[Totals, dict[str, dict]]:
    """Write quarantine.parquet from parts; return the totals and the sizes of the shards that hold clips."""
    totals, shards = Totals(), {}
    with (
        (folder / QUARANTINE_NAME).open_whole() as stream,
        pq.ParquetWriter(stream, QUARANTINE_SCHEMA, compression="zstd") as writer,
    ):
        for name in names:
            facts = read_part_facts(folder, name)
            if facts is None:
                raise UserError("a part of the prepare is gone or not whole", got=f"{part_place(folder, name)}")
            if facts["quarantine"]:
                writer.write_table(pa.Table.from_pylist(facts["quarantine"], schema=QUARANTINE_SCHEMA))
            shards |= facts["shards"]
            if facts["damage"]:
                totals.damaged.append(facts["damage"])
            totals.num_clips += facts["num_clips"]
            totals.num_quarantined += len(facts["quarantine"])
            totals.reasons.update(_kind_of(row["reason"]) for row in facts["quarantine"])
    totals.num_shards = len(shards)
    return totals, shards


def _write_index(folder: Place, names: list[str], shards: dict[str, dict]) -> None:
    """Join the parts, given in the order of their shards' names, into the index.

    A clip_id that several shards use (many corpora number their clips in each shard) stays with the first; the others
    get one made of shard and clip_id.
    """
    taken: set[str] = set()

    def tables() -> Iterator[pa.Table]:
        for name in names:
            with part_place(folder, name).open_file() as file:
                table = pq.read_table(file)
            if len(table):
                yield _with_unique_ids(table, taken)

    write_index(folder, tables(), shards)


def _with_unique_ids(table: pa.Table, taken: set[str]) -> pa.Table:
    clip_ids = table["clip_id"].to_pylist()
    for position, (clip_id, shard) in enumerate(zip(clip_ids, table["shard"].to_pylist(), strict=True)):
        if clip_id in taken:
            clip_ids[position] = make_clip_id(f"{shard}/{clip_id}", 0, None)
        taken.add(clip_ids[position])
    return table.set_column(table.column_names.index("clip_id"), "clip_id", pa.array(clip_ids, pa.string()))


def _trouble(totals: Totals, target: str, *, damaged_shards_are_refused: bool) -> UserError | None:
    """What makes the result useless, as an error."""
    if totals.damaged and damaged_shards_are_refused:
        shown = ", ".join(totals.damaged[:20]) + (" ..." if len(totals.damaged) > 20 else "")
        remedy = "mend or remove them, or set damaged_shards to quarantine"
        return UserError(f"{len(totals.damaged)} shards are damaged: {shown}", remedy=remedy)
    if not totals.num_clips:
        reasons = _reasons(totals) or "no video in any shard"
        return UserError(f"no clip is usable: {reasons}", remedy=f"see {join_uri(target, QUARANTINE_NAME)}")
    return None


def _check_quarantined(totals: Totals, target: str, max_quarantined: int | None) -> None:
    if max_quarantined is not None and totals.num_quarantined > max_quarantined:
        raise UserError(
            "too many clips were refused",
            got=f"{totals.num_quarantined} ({_reasons(totals)})",
            wanted=f"at most {max_quarantined}",
            remedy=f"see {join_uri(target, QUARANTINE_NAME)}; a larger max_quarantined takes the finished shards",
        )


def _reasons(totals: Totals) -> str:
    shown = [f"{count} {reason}" for reason, count in totals.reasons.most_common(_NUM_SHOWN)]
    more = len(totals.reasons) - len(shown)
    return ", ".join(shown) + (f" and {more} more reasons" if more > 0 else "")


def _kind_of(reason: str) -> str:
    """The part of a reason that rows share: what was wrong, without what was got."""
    return reason.partition(": ")[0].partition(" (")[0]
