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


def corrected_files(rows: Iterable[dict], *, origin: str) -> dict[str, bytes]:
    """Return the files of a finished caption table by their names, the summary last; of no rows there are none."""
    table, parquet = pa.Table.from_pylist(list(rows), schema=CAPTION_SCHEMA), pa.BufferOutputStream()
    if not len(table):
        return {}
    pq.write_table(table, parquet, compression="zstd")
    summary = {"version": TABLE_VERSION, "job": {"corrected": origin}, "files": {file_name(0): len(table)}}
    return {file_name(0): parquet.getvalue().to_pybytes(), SUMMARY_NAME: json.dumps(summary, indent=1).encode()}


def write_corrected(folder: Place, rows: Iterable[dict], *, origin: str) -> int:
    """Write a finished table of one file, in the place of what was there; returns how many rows it has.

    A table of no rows is none: the folder then has no summary, by which it would count.
    """
    rows = list(rows)
    files = corrected_files(rows, origin=origin)
    with storage_errors(folder.uri):
        if (folder / SUMMARY_NAME).is_file():
            (folder / SUMMARY_NAME).delete_file()
        for name, content in files.items():
            (folder / name).write_whole(content)
    return len(rows)
