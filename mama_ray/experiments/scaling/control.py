"""Measures Ray's share: what a chunk costs the driver, in a pipeline's source and beyond, and what the ledger takes."""

import contextlib
import logging
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.cluster.connect import quieten_ray_data
from mama_ray.orchestration.cluster.loopback import close_local_ray
from mama_ray.orchestration.cluster.pipelines import NUMBERS_PER_PIPELINE, dataset_of

_NUM_CHUNKS = 4000
_POOL_SIZES = (1, 8)


class NullEngine:
    """Takes the grids of a chunk and answers with counts at once."""

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Return a row of counts."""
        return pa.table({"num_clips": [len(batch["row"])]})


def start_ray() -> None:
    """Start a local Ray with some more CPUs than there are, as jobs do on a laptop; does nothing if there is one."""
    if not ray.is_initialized():
        close_local_ray()
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.WARNING}
        ray.init(address="local", num_cpus=4, **quiet)
    quieten_ray_data()


def measure_control_plane() -> dict[str, float]:
    """Return the driver's seconds and bytes per chunk, those of a pipeline's source, and ledger calls per second."""
    start_ray()
    result = measure_source(NUMBERS_PER_PIPELINE)
    for size in _POOL_SIZES:
        facts = run_null_pipeline(_NUM_CHUNKS, size)
        result |= {f"{name}_{size}_engines": value for name, value in facts.items()}
    return result | measure_ledger()


def run_null_pipeline(num_chunks: int, num_engines: int) -> dict[str, float]:
    """Stream chunks without work in them through the operators of a captioning job, a block for each."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    rows = np.arange(CHUNK_CLIPS)

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"row": rows, "pixels": np.zeros((CHUNK_CLIPS, 8, 8, 3), np.uint8)}

    context.target_max_block_size = 8 * 8 * 3 * CHUNK_CLIPS  # one chunk is a block of grids
    with DataContext.current(context):
        positions = dataset_of(range(num_chunks))
        grids = positions.map_batches(decode, batch_size=1, num_cpus=0.5, compute=TaskPoolStrategy(size=2))
        pool = ActorPoolStrategy(
            size=num_engines, max_concurrent_calls_per_actor=3, max_tasks_in_flight_per_actor=6,
            enable_true_multi_threading=True,
        )  # fmt: skip
        counts = grids.map_batches(NullEngine, batch_size=CHUNK_CLIPS, num_cpus=0.1, compute=pool)
        seen, marks = 0, []
        for batch in counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            seen += sum(batch["num_clips"].to_pylist()) // CHUNK_CLIPS
            marks.append((seen, time.perf_counter(), _cpu_s(), _private_bytes()))
    first, last = marks[len(marks) // 4], marks[-1]  # the start of the workers is no chunk's
    chunks, wall_s, cpu_s, num_bytes = (end - begin for begin, end in zip(first, last, strict=True))
    return {
        "driver_cpu_s_per_chunk": round(cpu_s / chunks, 6),
        "chunks_per_s": round(chunks / wall_s, 1),
        "driver_bytes_per_chunk": round(num_bytes / chunks),
    }


def measure_source(num_chunks: int) -> dict[str, float]:
    """Return what a whole pipeline's source takes of the driver, per chunk."""
    began_s, begun_bytes = _cpu_s(), _private_bytes()
    source = dataset_of(range(num_chunks))
    found = {
        "source_cpu_s_per_chunk": round((_cpu_s() - began_s) / num_chunks, 6),
        "source_bytes_per_chunk": round((_private_bytes() - begun_bytes) / num_chunks),
    }
    del source
    return found


def measure_ledger(num_calls: int = 3000) -> dict[str, float]:
    """Return calls per second that the ledger answers when many are asked at once."""
    ledger = CaptionLedger.remote()
    rows = list(range(CHUNK_CLIPS))
    ray.get(ledger.begin_batch.remote(rows))
    began = time.perf_counter()
    ray.get([ledger.end.remote(rows) for _ in range(num_calls)])
    calls_per_s = num_calls / (time.perf_counter() - began)
    ray.kill(ledger)
    return {"ledger_calls_per_s": round(calls_per_s)}


def workers_cpu_s() -> float:
    """Return CPU seconds of all of Ray's worker processes that live."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                total += process.cpu_times().user + process.cpu_times().system
    return total


def _cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


def _private_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
