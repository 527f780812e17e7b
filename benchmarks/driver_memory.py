"""What the driver keeps of chunks that pass through a captioning job's pipelines, whose stages do nothing here.

    .venv/bin/python benchmarks/driver_memory.py --chunks 100000

Prints JSON: the driver's private memory after each pipeline and at most, its CPU time for each chunk, and what a chunk
adds over all of them. Beside it what is in use: MiB that malloc has given out, and blocks that Python has; where these
stay as they are, what private memory grows by is room between them.
"""

import argparse
import ctypes
import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from mama_ray.orchestration.cluster import pipelines
from mama_ray.orchestration.cluster.connect import quieten_ray_data
from mama_ray.orchestration.cluster.freed_memory import share_one_arena
from mama_ray.orchestration.cluster.loopback import close_local_ray


class NullEngine:
    """Answers with counts at once."""

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Return a row of counts."""
        return pa.table({"num_clips": [32], "engine": ["engine"]})


def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return pixels of a chunk, 6 kB of them."""
    return {"id": batch["id"], "pixels": np.zeros((1, 6144), np.uint8)}


def main() -> None:
    """Run the pipelines and print what they left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--per-pipeline", type=int, default=pipelines.NUMBERS_PER_PIPELINE)
    options = parser.parse_args()
    pipelines.NUMBERS_PER_PIPELINE = options.per_pipeline
    close_local_ray()
    share_one_arena()  # as connect does
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.WARNING}
    ray.init(address="local", num_cpus=4, object_store_memory=512 << 20, **quiet)
    quieten_ray_data()
    context = DataContext.get_current().copy()
    context.enable_progress_bars, context.target_max_block_size = False, 6000  # a chunk is a block
    rows, began = [], time.process_time()
    with DataContext.current(context):
        runs = pipelines.runs_of(options.chunks)
        numbers = next(runs, None)
        while numbers is not None:
            rows.append(run_one(pipelines.dataset_of(numbers)))
            numbers = next(runs, None)  # the pipeline is over with this: what it freed is given back
            rows[-1] |= {"end_mb": round(private_mb(), 1), **in_use()}
            print(rows[-1], file=sys.stderr, flush=True)
    marks = [row["end_mb"] for row in rows]
    total = sum(row["chunks"] for row in rows)
    later = sum(row["chunks"] for row in rows[1:])
    result = {
        "chunks": total,
        "pipelines": rows,
        "cpu_ms_per_chunk": round((time.process_time() - began) / total * 1e3, 2),
        "bytes_per_chunk_over_pipelines": round((marks[-1] - marks[0]) * 2**20 / later) if later else None,
    }
    print(json.dumps(result, indent=1))
    ray.shutdown()


def run_one(numbers: ray.data.Dataset) -> dict[str, float]:
    """Work off one pipeline; return its chunks and the driver's memory after a quarter of them and at most, in MiB."""
    shown = numbers.map_batches(decode, batch_size=1, num_cpus=0.5, compute=TaskPoolStrategy(size=3))
    pool = ActorPoolStrategy(
        size=1, max_concurrent_calls_per_actor=3, max_tasks_in_flight_per_actor=6, enable_true_multi_threading=True
    )
    counts = shown.map_batches(NullEngine, batch_size=1, num_cpus=0.25, compute=pool)
    marks, done = [], 0
    for batch in counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        done += len(batch)
        marks.append(private_mb())
    quarter = marks[len(marks) // 4]
    return {"chunks": done, "quarter_mb": round(quarter), "most_mb": round(max(marks))}


def private_mb() -> float:
    """Return the private memory of this process, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc's malloc.h."""

    _fields_ = (
        *((f"part_{place}", ctypes.c_size_t) for place in range(7)),
        ("uordblks", ctypes.c_size_t),  # bytes that are given out
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def in_use() -> dict[str, float]:
    """Return what malloc has given out, MiB, where glibc tells it, and how many blocks Python has."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    found: dict[str, float] = {"python_blocks": sys.getallocatedblocks()}
    if mallinfo is not None:
        mallinfo.restype = _Mallinfo
        found["malloc_mb"] = round(mallinfo().uordblks / 2**20, 1)
    return found


if __name__ == "__main__":
    main()
