"""Reading clips with Ray Data: video bytes by the index's byte ranges, never a tar.

`read_clips` gives a dataset with one row per clip of the index, whatever happens to it: a clip whose bytes cannot be
had or are not those of the index has `error` set and no video. Blocks are bounded in bytes, rows come in the order of
(shard, offset), and neighbouring clips are fetched with one request.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from mama_ray.data.index import CAPTIONS_TYPE, check_clip_bytes, read_index, select_split
from mama_ray.data.shard import ShardError
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

CLIP_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("row", pa.int64()),
        ("video", pa.large_binary()),
        ("extension", pa.string()),
        ("sha256", pa.string()),
        ("captions", CAPTIONS_TYPE),
        ("topic", pa.string()),
        ("truth", pa.string()),
        ("error", pa.string()),
    ]
)
MAX_BLOCK_BYTES = 16 << 20
# Neighbours in a shard are a kilobyte apart; reading over a gap costs less than another request to an object store.
_MAX_GAP_BYTES = 64 << 10
_MAX_REQUEST_BYTES = 8 << 20
_LIGHT_CPUS = 0.5  # reading waits for the storage; CPUs stay free for the actors behind it
_INDEX_COLUMNS = (
    "clip_id",
    "shard",
    "offset",
    "num_bytes",
    "sha256",
    "extension",
    "captions",
    "topic",
    "truth",
    "split",
)


def read_clips(
    uri: str,
    *,
    split: str | None = None,
    max_block_bytes: int = MAX_BLOCK_BYTES,
    override_num_blocks: int | None = None,
) -> ray.data.Dataset:
    """Return the clips under `uri`, all or of one split, as a dataset of CLIP_SCHEMA; `row` counts the whole index.

    Raises UserError when the index is missing or damaged. The index's rows stay in the object store.
    """
    table, counts = _load_rows.remote(uri, split)
    counts = ray.get(counts)
    if isinstance(counts, UserError):
        raise counts
    source = ClipDatasource(uri, table, *counts, max_block_bytes=max_block_bytes)
    return ray.data.read_datasource(source, override_num_blocks=override_num_blocks, num_cpus=_LIGHT_CPUS)


@ray.remote(num_cpus=_LIGHT_CPUS, num_returns=2)
def _load_rows(uri: str, split: str | None) -> tuple[pa.Table | None, tuple[int, int] | UserError]:
    """Return the rows and their counts. An error is returned: raised, it would also hang on the table nobody gets."""
    try:
        table = read_index(Place.of(uri), columns=_INDEX_COLUMNS)
        table = table.append_column("row", pa.array(np.arange(len(table))))
        if split is not None:
            table = select_split(table, split)
    except UserError as error:
        return None, error
    num_bytes = pc.sum(table["num_bytes"]).as_py() or 0
    return table.drop_columns("split").combine_chunks(), (len(table), num_bytes)


class ClipDatasource(Datasource):
    """The clips of an index table that lies in the object store, in read tasks of neighbouring rows.

    Args:
        uri: folder of the shards.
        table: reference to rows of the index, sorted by (shard, offset), with their number in the index as `row`.
        num_rows, num_bytes: of the table and of its videos.
        max_block_bytes: a block is closed when its videos reach this; one clip may be larger.
    """

    def __init__(
        self, uri: str, table: ray.ObjectRef, num_rows: int, num_bytes: int, *, max_block_bytes: int = MAX_BLOCK_BYTES
    ) -> None:
        super().__init__()
        self._uri, self._table, self._num_rows, self._num_bytes = uri, table, num_rows, num_bytes
        self._max_block_bytes = max_block_bytes

    def estimate_inmemory_data_size(self) -> int:
        return self._num_bytes

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Cut the table into equal runs of rows, one task each."""
        uri, table, max_block_bytes = self._uri, self._table, self._max_block_bytes
        count = max(1, min(parallelism, self._num_rows))
        edges = np.linspace(0, self._num_rows, count + 1).astype(int).tolist()
        tasks = []
        for start, stop in itertools.pairwise(edges):
            size = self._num_bytes * (stop - start) // max(1, self._num_rows)
            metadata = BlockMetadata(num_rows=stop - start, size_bytes=size, input_files=None, exec_stats=None)

            def read(start: int = start, stop: int = stop) -> Iterator[pa.Table]:
                rows = ray.get(table).slice(start, stop - start)
                return read_blocks(Place.of(uri), rows, max_block_bytes=max_block_bytes)

            tasks.append(ReadTask(read, metadata, schema=CLIP_SCHEMA, per_task_row_limit=per_task_row_limit))
        return tasks


@dataclass
class _Run:
    """Rows of one shard that are fetched with one request."""

    shard: str
    start: int
    stop: int
    rows: list[dict[str, Any]]


def read_blocks(folder: Place, rows: pa.Table, *, max_block_bytes: int = MAX_BLOCK_BYTES) -> Iterator[pa.Table]:
    """Yield tables of CLIP_SCHEMA for the index rows, in their order; memory is one block and one request."""
    pending: list[dict[str, Any]] = []
    size = 0
    for batch in rows.to_batches(max_chunksize=1024):
        for run in _runs(batch.to_pylist()):
            for row, data, error in _read_run(folder, run):
                if pending and size + len(data or b"") > max_block_bytes:
                    yield _block(pending)
                    pending, size = [], 0
                pending.append({**row, "video": data, "error": error})
                size += len(data or b"")
    if pending:
        yield _block(pending)


def _runs(rows: Sequence[dict[str, Any]]) -> Iterator[_Run]:
    run: _Run | None = None
    for row in rows:
        start, stop = row["offset"], row["offset"] + row["num_bytes"]
        joins = (
            run is not None
            and run.shard == row["shard"]
            and 0 <= start - run.stop <= _MAX_GAP_BYTES
            and stop - run.start <= _MAX_REQUEST_BYTES
        )
        if joins:
            run.stop = stop
            run.rows.append(row)
        else:
            if run is not None:
                yield run
            run = _Run(row["shard"], start, stop, [row])
    if run is not None:
        yield run


def _read_run(folder: Place, run: _Run) -> Iterator[tuple[dict[str, Any], bytes | None, str | None]]:
    """Yield (row, bytes, None) or (row, None, error) for each row of a run."""

    def fetch() -> bytes:
        with (folder / run.shard).open_file() as file:
            # Past the end of a truncated shard Arrow raises what looks like a failing storage, which is tried again.
            return file.read_at(run.stop - run.start, run.start) if run.start < file.size() else b""

    try:
        data = with_retries(fetch)
    except FileNotFoundError:
        data, trouble = None, f"shard {run.shard} is missing"
    except OSError as error:
        data, trouble = None, f"shard {run.shard} cannot be read: {' '.join(str(error).split())}"
    for row in run.rows:
        if data is None:
            yield row, None, trouble
            continue
        first = row["offset"] - run.start
        video = data[first : first + row["num_bytes"]]
        try:
            check_clip_bytes(video, run.shard, row["offset"], row["num_bytes"], row["sha256"])
            yield row, video, None
        except ShardError as error:
            yield row, None, str(error)


def _block(rows: list[dict[str, Any]]) -> pa.Table:
    """Build a block with the videos joined once: Arrow's builder would grow, and hold, twice the bytes."""
    videos = [row["video"] for row in rows]
    offsets = np.cumsum([0, *(len(video or b"") for video in videos)], dtype=np.int64)
    valid = pa.array([video is not None for video in videos]).buffers()[1]
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(video or b"" for video in videos))]
    joined = pa.Array.from_buffers(pa.large_binary(), len(rows), buffers)
    columns = [
        joined if field.name == "video" else pa.array([row[field.name] for row in rows], field.type)
        for field in CLIP_SCHEMA
    ]
    return pa.table(columns, schema=CLIP_SCHEMA)
