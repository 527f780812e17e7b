"""What a captioning job has committed: small Parquet parts, whose names alone say which clips they hold.

`<output>/.captioning/parts/<file>/<chunk>-<mask>.parquet` holds the clips of a chunk (so many neighbouring rows of the
index) whose bits are set in the hexadecimal mask. A part is written whole or not at all, so a listing tells what is
done, to the clip, and a clip that was written twice, by a task that ran again, is found by its name as well. `file` is
the number of the table's file that the clips will be in.
"""

import errno
import re
from collections.abc import Iterable
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.captioning.table import with_current_names
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

WORK_FOLDER = ".captioning"
CHUNK_CLIPS = 32
CHUNKS_PER_FILE = 128
CLIPS_PER_FILE = CHUNKS_PER_FILE * CHUNK_CLIPS
PART_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the job's list of clips
        ("clip_id", pa.string()),
        ("video_sha256", pa.string()),
        ("sample", pa.int32()),
        ("frame_indices", pa.list_(pa.int32())),
        ("num_filled", pa.int32()),
        ("shown_sha256", pa.string()),
        ("text", pa.string()),  # as the model wrote it
        ("seed", pa.int64()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("mean_logprob", pa.float32()),
        ("error", pa.string()),
    ]
)
_NAME = re.compile(r"(\d{8})-([0-9a-f]{8})\.parquet")


def parts_folder(folder: Place, file_number: int | None = None) -> Place:
    """Return the folder of a job's parts, all or those of one file of the table."""
    parts = folder / f"{WORK_FOLDER}/parts"
    return parts if file_number is None else parts / f"{file_number:06d}"


def part_place(folder: Place, name: str) -> Place:
    """Return where a part lies."""
    return parts_folder(folder, int(name[:8]) // CHUNKS_PER_FILE) / name


def part_names(rows: Iterable[int]) -> dict[str, list[int]]:
    """Return the names of the parts that hold these rows, with the rows of each."""
    by_chunk: dict[int, list[int]] = {}
    for row in sorted(set(rows)):
        by_chunk.setdefault(row // CHUNK_CLIPS, []).append(row)
    return {
        f"{chunk:08d}-{sum(1 << (row % CHUNK_CLIPS) for row in own):08x}.parquet": own
        for chunk, own in by_chunk.items()
    }


def rows_of_part(name: str) -> list[int] | None:
    """Return the rows that a part of this name holds, None for a file that is no part."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    chunk, mask = int(match[1]), int(match[2], 16)
    return [chunk * CHUNK_CLIPS + bit for bit in range(CHUNK_CLIPS) if mask >> bit & 1]


def list_parts(folder: Place, file_number: int | None = None) -> list[str]:
    """Return the names of the parts that were committed, all or those of one file of the table, sorted."""
    files = parts_folder(folder, file_number).files(recursive=True)
    return sorted(file.name for file in files if _NAME.fullmatch(file.name))


def committed_rows(names: Iterable[str], num_clips: int) -> np.ndarray:
    """Return bool (num_clips,): which rows the parts of these names hold."""
    done = np.zeros(num_clips, bool)
    for name in names:
        rows = rows_of_part(name)
        done[[row for row in rows or [] if row < num_clips]] = True
    return done


def require_work_folder(folder: Place) -> None:
    """Raise FileNotFoundError where a job's local work folder has been taken away.

    Parts would else make a new one, on the disk below, and be lost when the first is back.
    """
    work = folder / WORK_FOLDER
    if folder.is_local and not work.exists():
        raise FileNotFoundError(errno.ENOENT, "the work folder of the job is gone", work.path)


def write_parts(folder: Place, table: pa.Table) -> None:
    """Commit all rows of a table of PART_SCHEMA, as one part per chunk."""
    rows = table["row"].to_numpy()
    for name, own in part_names(rows.tolist()).items():
        part = table.filter(pa.array(np.isin(rows, own)))
        part_place(folder, name).write_whole(partial(pq.write_table, part, compression="zstd"))


def read_part(folder: Place, name: str) -> pa.Table | None:
    """Read a part; None when it is not what its name says, as after a power failure.

    Raises UserError where the storage fails: nothing is known of the part then, and its captions must not be lost.
    """
    place = part_place(folder, name)
    with storage_errors(place.uri):
        content = with_retries(place.read_bytes)  # at once: a part is small, and each range of it is a request
    try:
        table = with_current_names(pq.ParquetFile(pa.BufferReader(content)).read())
    except (pa.ArrowInvalid, OSError):  # Arrow has both for damaged bytes
        return None
    if not table.schema.equals(PART_SCHEMA) or sorted(set(table["row"].to_pylist())) != rows_of_part(name):
        return None
    return table
