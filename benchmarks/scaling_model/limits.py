"""Two limits of the pipeline, run at the size that matters: Arrow's strings, and a decode task whose worker dies."""

import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from benchmarks.scaling_model.control import start_ray

_SHA256_BYTES = 64
_ROWS_PER_BATCH = 1_000_000
_BLOCK, _DIES_AT = 40, 20


def show_limits() -> dict[str, str]:
    """Return what happens; takes a minute and some 8 GB of memory."""
    return {
        **{f"take of 32 rows of {rows:,}": take_rows(rows) for rows in (30_000_000, 34_000_000)},
        f"a worker dies at chunk {_DIES_AT} of a block of {_BLOCK}": count_decodings(),
    }


def take_rows(num_rows: int) -> str:
    """Do to hashes what a captioning job does to its table: combine its chunks, then take the rows of one chunk."""
    offsets = np.arange(_ROWS_PER_BATCH + 1, dtype=np.int32) * _SHA256_BYTES
    letters = pa.py_buffer(np.full(_ROWS_PER_BATCH * _SHA256_BYTES, ord("a"), np.uint8))
    hashes = pa.StringArray.from_buffers(_ROWS_PER_BATCH, pa.py_buffer(offsets), letters)
    table = pa.table({"sha256": pa.chunked_array([hashes] * (num_rows // _ROWS_PER_BATCH))}).combine_chunks()
    try:
        return f"{len(table.take(pa.array(range(32))))} rows"
    except pa.ArrowInvalid as error:
        return f"ArrowInvalid: {error}"


def count_decodings() -> str:
    """Let a decode task's worker die once in the middle of its block; tell how many chunks were decoded twice."""
    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        log, mark = Path(folder) / "log", Path(folder) / "died"

        def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            with log.open("a") as file:
                file.write(f"{batch['id'][0]}\n")
            time.sleep(0.05)
            if batch["id"][0] == _DIES_AT and not mark.exists():
                mark.touch()
                os._exit(1)
            return {"id": batch["id"], "pixels": np.zeros((1, 6144), np.uint8)}

        context = DataContext.get_current().copy()
        context.enable_progress_bars, context.target_max_block_size = False, 6000  # one chunk is a block of grids
        with DataContext.current(context):
            grids = ray.data.range(_BLOCK, override_num_blocks=1).map_batches(
                decode, batch_size=1, num_cpus=0.5, compute=TaskPoolStrategy(size=1)
            )
            done = grids.map_batches(_Engine, batch_size=1, num_cpus=0.25, compute=ActorPoolStrategy(size=1))
            rows = [int(row) for batch in done.iter_batches(batch_size=None) for row in batch["id"]]
        again = sum(count > 1 for count in Counter(log.read_text().split()).values())
    return f"{again} chunks decoded twice, {len(rows)} captioned, {len(set(rows))} of them different"


class _Engine:
    """Passes the numbers of chunks on."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"id": batch["id"]}
