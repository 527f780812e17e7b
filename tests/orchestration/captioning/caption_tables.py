"""Finished caption tables for tests, with rows for the clips of a corpus."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, TABLE_VERSION, file_name
from mama_ray.data.index import read_index
from mama_ray.storage.places import Place


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
