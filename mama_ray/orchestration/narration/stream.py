"""The Ray Data pipeline of a narrate job: stretches of videos in, counts out.

It is that of a captioning job but for its first stage: one task reads the windows of many chunks in one pass and gives
out a chunk at a time, as fast as the engines take them. Several tasks read stretches of a long video side by side; each
begins at the key frame before its own.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext, TaskPoolStrategy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mama_ray.orchestration.captioning.actor import Captioning
from mama_ray.orchestration.captioning.decode import decode_chunk
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.captioning.plan import CaptionPlan, PendingChunks
from mama_ray.orchestration.captioning.pool import PoolHistory, pool_of_engines, watched
from mama_ray.orchestration.narration.source import OnePass

# Chunks that a task reads in one pass: few where several tasks share a video, so that all have some; two hours of
# windows of a second where there is one task, which another pass would bring nothing but another process.
_FEWEST, _MOST = 4, 256
_TASKS_EACH = 2  # for every task that can run, so that none waits long for the last


def narrate_windows(
    plan: CaptionPlan, pending: PendingChunks, pool: PoolConfig, history: PoolHistory
) -> Iterator[dict[str, list]]:
    """Narrate what is pending; yields columns of counts as batches are committed (see Captioning.__call__)."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    # A block is a chunk, however small its pixels are: windows are to be narrated while the next are read.
    context.target_max_block_size = max(1, plan.show.blank().nbytes * CHUNK_CLIPS)
    context.actor_init_retry_on_errors = False
    home = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    ledger = CaptionLedger.options(scheduling_strategy=home).remote()
    length = chunks_per_pass(pending.num_chunks, _tasks_at_once(pool))
    num_passes = -(-pending.num_chunks // length)

    def decode(batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        start = int(batch["id"][0]) * length
        yield from decode_pass(plan, pending, range(start, min(start + length, pending.num_chunks)))

    with DataContext.current(context):
        shown = ray.data.range(num_passes, override_num_blocks=num_passes).map_batches(
            decode,
            batch_size=1,
            num_cpus=pool.decode_cpus,
            compute=TaskPoolStrategy(size=pool.max_decode_tasks),
            label_selector=dict(pool.decode_labels) or None,
        )
        counts = shown.map_batches(
            Captioning,
            fn_constructor_args=(plan, ledger, pool.max_attempts),
            batch_size=CHUNK_CLIPS,
            compute=pool_of_engines(pool),
            num_cpus=pool.cpus_per_engine,
            num_gpus=pool.gpus_per_engine,
            resources=pool.resources or None,
            label_selector=dict(pool.engine_labels) or None,
        )
        counts.set_name("narrate")
        try:
            with watched(ledger, history):
                for batch in counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                    yield batch.to_pydict()
        finally:
            ray.kill(ledger)


def chunks_per_pass(num_chunks: int, num_tasks: int) -> int:
    """Return how many chunks a task reads: few enough that all tasks have some, and within bounds."""
    if num_tasks == 1:
        return _MOST
    return min(max(-(-num_chunks // (_TASKS_EACH * num_tasks)), _FEWEST), _MOST)


def decode_pass(plan: CaptionPlan, pending: PendingChunks, positions: range) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of `decode_chunk` of neighbouring pending chunks, whose windows are read in one pass."""
    chunks, done, table = ray.get([pending.chunks, pending.done, plan.table])
    rows = [_pending_rows(int(chunks[position]), done) for position in positions]
    records = table.take(pa.array(np.concatenate(rows))).to_pylist()
    source = OnePass(plan.source, records, plan.show)
    for position in positions:
        yield decode_chunk(replace(plan, source=source), pending, position)
    source.finish()


def _pending_rows(chunk: int, done: np.ndarray) -> np.ndarray:
    start = chunk * CHUNK_CLIPS
    return start + np.flatnonzero(~done[start : start + CHUNK_CLIPS])


def _tasks_at_once(pool: PoolConfig) -> int:
    if pool.max_decode_tasks is not None:
        return pool.max_decode_tasks
    return max(1, int(ray.cluster_resources().get("CPU", 1) / pool.decode_cpus))
