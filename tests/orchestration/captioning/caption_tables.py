"""Finished caption tables for tests, with rows for the clips of a corpus, and the parts of an older job."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, TABLE_VERSION, file_name
from mama_ray.data.index import read_index
from mama_ray.storage.places import Place

# The columns of a part as jobs of version 1 wrote it.
PART_SCHEMA_1 = pa.schema(
    [
        ("row", pa.int64()), ("clip_id", pa.string()), ("video_sha256", pa.string()), ("sample", pa.int32()),
        ("frame_indices", pa.list_(pa.int32())), ("num_filled", pa.int32()), ("grid_sha256", pa.string()),
        ("text", pa.string()), ("seed", pa.int64()), ("num_tokens", pa.int32()), ("finish_reason", pa.string()),
        ("mean_logprob", pa.float32()), ("error", pa.string()),
    ]
)  # fmt: skip


def parts_of_version_1(rows: list[int]) -> pa.Table:
    """Return what a job of version 1 committed of clips, whose ids and hashes are made of their rows."""
    known = {"sample": 0, "frame_indices": [0, 1], "num_filled": 0, "seed": 7, "num_tokens": 5}
    known |= {"finish_reason": "stop", "mean_logprob": -1.0, "error": None}
    made = [
        known
        | {"row": row, "clip_id": f"clip-{row}", "video_sha256": f"sha-{row}", "grid_sha256": f"grid-{row}"}
        | {"text": f"an old dog {row} runs"}
        for row in rows
    ]
    return pa.Table.from_pylist(made, schema=PART_SCHEMA_1)


def write_table(directory: Path, rows: list[dict]) -> str:
    """Write a finished caption table in two files; rows hold what differs from a good caption of their clip."""
    directory.mkdir(parents=True, exist_ok=True)
    ordinary = {"sample": 0, "source": "generated", "flags": [], "finish_reason": "stop"}
    files = {file_name(0): rows[: len(rows) // 2], file_name(1): rows[len(rows) // 2 :]}
    for name, part in files.items():
        table = pa.Table.from_pylist([ordinary | row for row in part], schema=CAPTION_SCHEMA)
        pq.write_table(table, directory / name)
    summary = {"version": TABLE_VERSION, "files": {name: len(part) for name, part in files.items()}}
    (directory / SUMMARY_NAME).write_text(json.dumps(summary))
    return str(directory)


def captions_of(shards: str, *splits: str, text: str = "a generated caption of {}") -> list[dict]:
    """Return a row of a caption table for every clip of the splits."""
    return [
        {"clip_id": row["clip_id"], "video_sha256": row["sha256"], "caption": text.format(row["clip_id"])}
        for row in read_index(Place.of(shards)).to_pylist()
        if row["split"] in splits
    ]
