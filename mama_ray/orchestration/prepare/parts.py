"""The work folder of a prepare: what each task leaves behind, and how the parts become the index.

`<output>/.prepare/` holds inputs.json (what is being prepared), chunks/ (checked annotations, one file per shard) and
parts/ (the index rows and quarantine of a finished shard). A part is written after its shard, so a part means a whole
shard, and a job that was killed starts again with what it has.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.index import INDEX_SCHEMA
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.quarantine import refused_row
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

WORK_FOLDER = ".prepare"
SUMMARY_NAME = "prepare.json"
MAX_PARTS = 1_000_000  # whose names sort as their numbers do
_PART_KEY = b"mama_ray.part"


@dataclass
class Part:
    """What one task found: the rows of its shards and the clips it refused.

    Attributes:
        shards: {name: {num_bytes, num_clips}} of those that hold clips.
        damage: name and reason of a shard that is refused whole.
        source: the foreign shard that was walked.
        cut: clip_ids of whole videos that became several clips, one for each scene.
        clamped: how many clips have another "start" or "end" than was asked for, because the video has not, and how
            many, where clips are made smaller, are without "frames" that do not decode.
    """

    shards: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    damage: str | None = None
    source: str | None = None
    cut: list[str] = field(default_factory=list)
    clamped: Counter[str] = field(default_factory=Counter)

    def take(self, row: dict[str, Any]) -> None:
        """Add an index row. Raises ValueError for one that the index cannot hold, which would fail all of the part."""
        try:
            pa.Table.from_pylist([row], schema=INDEX_SCHEMA)
        except (ValueError, TypeError, OverflowError) as error:  # those of Arrow are among them
            raise ValueError(f"the index cannot hold a value ({' '.join(str(error).split())})") from error
        self.rows.append(row)

    def withdraw(self, shard: str, offset: int) -> None:
        """Take back the row of a video."""
        self.rows = [row for row in self.rows if (row["shard"], row["offset"]) != (shard, offset)]

    def refuse(self, reason: str, **known: Any) -> None:
        """Add a quarantine row; `known` are the other columns, as far as they are known."""
        self.quarantine.append(refused_row(reason, **known))


def part_name(number: int) -> str:
    """Name of task `number`. Raises UserError for a number whose shard would not come behind the others by name."""
    if number >= MAX_PARTS:
        raise UserError(
            "too many shards for one output", wanted=f"{MAX_PARTS} at most", remedy="set a larger clips_per_shard"
        )
    return f"{number:06d}"


def part_place(folder: Place, name: str) -> Place:
    """Where the part of task `name` lies in the output folder."""
    return folder / f"{WORK_FOLDER}/parts/{name}.parquet"


def write_part(folder: Place, name: str, part: Part) -> None:
    """Write the part of task `name`, whole or not at all."""
    facts = {
        "shards": part.shards,
        "quarantine": part.quarantine,
        "damage": part.damage,
        "source": part.source,
        "cut": part.cut,
        "clamped": part.clamped,
        "num_clips": len(part.rows),
        **_counts(part.rows),
    }
    schema = INDEX_SCHEMA.with_metadata({_PART_KEY: json.dumps(facts).encode()})
    table = pa.Table.from_pylist(part.rows, schema=schema)
    part_place(folder, name).write_whole(lambda stream: pq.write_table(table, stream, compression="zstd"))


def read_part_facts(folder: Place, name: str) -> dict[str, Any] | None:
    """Read shards, num_clips, num_uncaptioned, splits, quarantine and damage of a part.

    None when it, or a shard of it, is not there whole. Raises OSError when the storage fails again and again: an outage
    does not make a finished shard an unfinished one.
    """
    try:
        data = with_retries(part_place(folder, name).read_bytes)
    except FileNotFoundError:
        return None
    try:  # no storage from here on: an OSError of Arrow is damage, too
        source = pa.BufferReader(data)
        facts = json.loads(pq.read_schema(source).metadata[_PART_KEY])
        facts = facts if "shards" in facts else _from_one_shard(facts)
        sizes = {shard: int(size["num_bytes"]) for shard, size in facts["shards"].items()}
        if "splits" not in facts:  # of an earlier version
            facts |= _counts(pq.read_table(source, columns=["split", "captions"]).to_pylist())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    for shard, num_bytes in sizes.items():
        info = with_retries((folder / shard).info)
        if not info.is_file or info.size != num_bytes:
            return None
    return facts


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    splits = Counter(row["split"] for row in rows if row["split"])
    return {"num_uncaptioned": sum(not row["captions"] for row in rows), "splits": dict(splits)}


def _from_one_shard(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a part from the time when a part was of one shard."""
    shard, damage = facts["shard"], facts["damage"]
    size = {"num_bytes": facts["num_bytes"], "num_clips": facts["num_clips"]}
    shards = {shard: size} if facts["num_clips"] else {}
    return {**facts, "shards": shards, "damage": damage and f"{shard} ({damage})"}
