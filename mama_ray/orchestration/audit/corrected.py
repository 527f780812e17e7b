"""The corrected caption table: for what an audit or a person rewrote, the better text, as training reads tables."""

import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, TABLE_VERSION, file_name
from mama_ray.storage.places import Place, storage_errors

CORRECTED_NAME = "corrected"


def corrected_row(clip_id: str, video_sha256: str, text: str, source: str, *, by: str) -> dict:
    """Return the row of a clip's better caption; `by` says who or what put it there."""
    row = {"clip_id": clip_id, "sample": 0, "video_sha256": video_sha256, "caption": text, "source": source}
    return {**dict.fromkeys(CAPTION_SCHEMA.names), **row, "model": by, "flags": []}


def corrected_table(rows: Iterable[dict]) -> pa.Table:
    """Return rows as a caption table."""
    return pa.Table.from_pylist(list(rows), schema=CAPTION_SCHEMA)


def write_corrected(folder: Place, rows: Iterable[dict], *, origin: str) -> int:
    """Write a finished table of one file, in the place of what was there; returns how many rows it has.

    A table of no rows is none: the folder then has no summary, by which it would count.
    """
    table = corrected_table(rows)
    with storage_errors(folder.uri):
        if (folder / SUMMARY_NAME).is_file():
            (folder / SUMMARY_NAME).delete_file()
        if len(table):
            (folder / file_name(0)).write_whole(lambda stream: pq.write_table(table, stream, compression="zstd"))
            record = {"version": TABLE_VERSION, "job": {"corrected": origin}, "files": {file_name(0): len(table)}}
            (folder / SUMMARY_NAME).write_whole(json.dumps(record, indent=1))
    return len(table)
