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

from mama_ray.orchestration.captioning.decode import decode_chunk
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.captioning.stream import caption_decoded
from mama_ray.orchestration.cluster.pipelines import runs_of
from mama_ray.orchestration.narration.source import OnePass

# Chunks that a task reads in one pass: few where several tasks share a video, so that all have some; two hours of
# windows of a second where there is one task, which another pass would bring nothing but another process.
_FEWEST, _MOST = 4, 256
_TASKS_EACH = 2  # for every task that can run, so that none waits long for the last


def narrate_windows(
    plan: CaptionPlan, pending: PendingChunks, pool: PoolConfig, history: PoolHistory
) -> Iterator[dict[str, list]]:
    """Narrate what is pending; yields columns of counts as batches are committed (see Captioning.__call__)."""
    length = chunks_per_pass(pending.num_chunks, _tasks_at_once(pool))
    num_passes = -(-pending.num_chunks // length)

    def decode(batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        start = int(batch["id"][0]) * length
        yield from decode_pass(plan, pending, range(start, min(start + length, pending.num_chunks)))

    # A block is a chunk, however small its pixels are: windows are to be narrated while the next are read.
    block_bytes = max(1, plan.show.blank().nbytes * CHUNK_CLIPS)
    for passes in runs_of(num_passes):
        yield from caption_decoded(plan, pool, history, passes, decode, block_bytes=block_bytes)


def chunks_per_pass(num_chunks: int, num_tasks: int) -> int:
    """Return how many chunks a task reads: few enough that all tasks have some, and within bounds."""
    if num_tasks == 1:
        return _MOST
    return min(max(-(-num_chunks // (_TASKS_EACH * num_tasks)), _FEWEST), _MOST)


def decode_pass(plan: CaptionPlan, pending: PendingChunks, positions: range) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of `decode_chunk` of neighbouring pending chunks, whose windows are read in one pass."""
    rows = [pending.rows(position) for position in positions]
    records = ray.get(plan.table).take(pa.array(np.concatenate(rows))).to_pylist()
    source = OnePass(plan.source, records, plan.show)
    for position in positions:
        yield decode_chunk(replace(plan, source=source), pending, position)
    source.finish()


def _tasks_at_once(pool: PoolConfig) -> int:
    if pool.max_decode_tasks is not None:
        return pool.max_decode_tasks
    return max(1, int(ray.cluster_resources().get("CPU", 1) / pool.decode_cpus))
