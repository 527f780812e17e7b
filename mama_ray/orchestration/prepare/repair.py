"""Inputs that were mended: files that are other now than when they were refused."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mama_ray.orchestration.prepare.listing import list_files
from mama_ray.orchestration.prepare.quarantine import QUARANTINE_NAME
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

NO_SUCH_FILE = "no such video file"
_FILES_AT_ONCE = 1000


def file_facts(video: Place, info: pafs.FileInfo) -> dict[str, int | None]:
    """Size and time of a file, as quarantine rows have them, or of all chunks in a folder; both None where there is
    none."""
    if info.is_file:
        return {"file_bytes": info.size, "file_modified_ns": info.mtime_ns}
    chunks = list_files(video) if info.type == pafs.FileType.Directory else []
    if not chunks:
        return {"file_bytes": None, "file_modified_ns": None}
    modified_ns = max(chunk.modified_ns or 0 for chunk in chunks)
    return {"file_bytes": sum(chunk.num_bytes for chunk in chunks), "file_modified_ns": modified_ns}


def mended(videos: Place, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of the quarantine rows whose video file is another now, or there at last.

    Rows that were refused for what the table says of them stay refused: a mended table is another input.
    """
    rows = [row for row in rows if is_of_a_file(row)]
    found = []
    for start in range(0, len(rows), _FILES_AT_ONCE):
        some = rows[start : start + _FILES_AT_ONCE]
        paths = [(videos / row["video"]).path for row in some]
        infos = with_retries(lambda paths=paths: videos.filesystem.get_file_info(paths))
        found += [row for row, info in zip(some, infos, strict=True) if _is_other(row, videos / row["video"], info)]
    return found


def is_of_a_file(row: dict[str, Any]) -> bool:
    """Whether a row was refused for its video, not for what the table says: only these have a start."""
    return row["video"] is not None and row["start_s"] is not None


def _is_other(row: dict[str, Any], video: Place, info: pafs.FileInfo) -> bool:
    now = with_retries(lambda: file_facts(video, info))
    if row["reason"].startswith(NO_SUCH_FILE):  # whatever was noted: an earlier version said so of lost disks, too
        return now["file_bytes"] is not None
    # An even earlier one noted nothing of the files.
    return "file_bytes" in row and {name: row[name] for name in now} != now


def quarantined_rows(folder: Place) -> Iterator[list[dict[str, Any]]]:
    """Yield the quarantine of a finished prepare, some rows at a time."""
    try:
        file = (folder / QUARANTINE_NAME).open_file()
    except FileNotFoundError:
        return
    with file, pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches():
            yield batch.to_pylist()


def next_chunk(shards: Iterable[str], shard_name: str) -> int:
    """Return the first number of a chunk that no shard of these names has."""
    pattern = re.compile(rf"{re.escape(shard_name)}-(\d+)(?:_\d+)?\.tar")
    numbers = [int(match[1]) for name in shards if (match := pattern.fullmatch(name.rpartition("/")[2]))]
    return max(numbers, default=-1) + 1
