"""What a captioning job has committed: small Parquet parts, whose names alone say which clips they hold.

`<output>/.captioning/parts/<file>/<chunk>-<mask>.parquet` holds the clips of a chunk (so many neighbouring rows of the
index) whose bits are set in the hexadecimal mask. A part is written whole or not at all, so a listing tells what is
done, to the clip, and a clip that was written twice, by a task that ran again, is found by its name as well. `file` is
the number of the table's file that the clips will be in.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.captioning.table import with_current_names
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

WORK_FOLDER = ".captioning"
CHUNK_CLIPS = 32
CLIPS_PER_FILE = 4096
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
# 32, 64 or 128 clips of a chunk, four to a digit.
_NAME = re.compile(r"(\d{8})-([0-9a-f]{8}|[0-9a-f]{16}|[0-9a-f]{32})\.parquet")
# Up to a million clips chunks are as small as engines like them; more clips have larger ones, which are fewer for the
# driver and the storage, until decoding one takes a core longer than may be lost: 85 s of clips of 10 s in 720p.
_LARGER_CHUNKS = {1 << 20: 64, 8 << 20: 128}
_LIST_THREADS = 24  # Arrow's S3 client keeps 25 requests in flight


def parts_folder(folder: Place, file_number: int | None = None) -> Place:
    """Return the folder of a job's parts, all or those of one file of the table."""
    parts = folder / f"{WORK_FOLDER}/parts"
    return parts if file_number is None else parts / f"{file_number:06d}"


def chunk_clips_of(num_clips: int) -> int:
    """Return the clips of a chunk in a job of so many."""
    return max([CHUNK_CLIPS, *(size for least, size in _LARGER_CHUNKS.items() if num_clips > least)])


def part_place(folder: Place, name: str) -> Place:
    """Return where a part lies."""
    return parts_folder(folder, first_row(name) // CLIPS_PER_FILE) / name


def first_row(name: str) -> int:
    """Return the first row of the chunk that a part of this name is of, whether the part has it or not."""
    return int(name[:8]) * 4 * len(name[9:].partition(".")[0])


def part_names(rows: Iterable[int], chunk_clips: int = CHUNK_CLIPS) -> dict[str, list[int]]:
    """Return the names of the parts that hold these rows, with the rows of each."""
    by_chunk: dict[int, list[int]] = {}
    for row in sorted(set(rows)):
        by_chunk.setdefault(row // chunk_clips, []).append(row)
    digits = chunk_clips // 4
    return {
        f"{chunk:08d}-{sum(1 << (row % chunk_clips) for row in own):0{digits}x}.parquet": own
        for chunk, own in by_chunk.items()
    }


def rows_of_part(name: str) -> list[int] | None:
    """Return the rows that a part of this name holds, None for a file that is no part."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    start, mask = first_row(name), int(match[2], 16)
    return [start + bit for bit in range(4 * len(match[2])) if mask >> bit & 1]


def list_parts(folder: Place, file_number: int | None = None) -> list[str]:
    """Return the names of the parts that were committed, all or those of one file of the table, sorted."""
    files = parts_folder(folder, file_number).files(recursive=True)
    return sorted(file.name for file in files if _NAME.fullmatch(file.name))


def iterate_parts(folder: Place) -> Iterator[list[str]]:
    """Yield the names of the parts of each file of the table, in order: what is in memory are those of some files."""
    found = [info.base_name for info in parts_folder(folder).entries() if not info.is_file]
    numbers = [int(name) for name in found if name.isdigit()]
    with ThreadPoolExecutor(_LIST_THREADS) as pool:
        yield from pool.map(partial(list_parts, folder), numbers)


def has_parts(folder: Place) -> bool:
    """Tell whether anything was committed."""
    found = [info.base_name for info in parts_folder(folder).entries() if not info.is_file]
    return any(list_parts(folder, int(name)) for name in found if name.isdigit())


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


def write_parts(folder: Place, table: pa.Table, chunk_clips: int = CHUNK_CLIPS) -> None:
    """Commit all rows of a table of PART_SCHEMA, as one part per chunk."""
    rows = table["row"].to_numpy()
    for name, own in part_names(rows.tolist(), chunk_clips).items():
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
