"""The Ray Data pipeline of a captioning job: chunk numbers in, counts out; pixels go from tasks to actors.

Its rows are numbers of pending chunks, so nothing about the corpus passes through the driver, and the actors commit to
the storage themselves: what was committed is done, whatever happens to the pipeline.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ray
from ray.data import DataContext, TaskPoolStrategy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mama_ray.captioning.pictures.settings import GRID
from mama_ray.orchestration.captioning.actor import Captioning
from mama_ray.orchestration.captioning.deaths import unproven_taken_back
from mama_ray.orchestration.captioning.decode import decode_chunk
from mama_ray.orchestration.captioning.job import PoolConfig, most_deaths
from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.pool import PoolHistory, pool_of_engines, watched
from mama_ray.orchestration.captioning.source import MAX_READ_BYTES
from mama_ray.orchestration.cluster.labels import matches
from mama_ray.orchestration.cluster.pipelines import dataset_of, runs_of

logger = logging.getLogger(__name__)

# One chunk of LLaVA's grids: small blocks spread over the pool, and little is done again when an actor dies.
_TARGET_BLOCK_BYTES = 12 << 20


def caption_chunks(
    plan: CaptionPlan, pending: PendingChunks, pool: PoolConfig, history: PoolHistory
) -> Iterator[dict[str, list]]:
    """Caption what is pending; yields columns of counts as batches are committed (see Captioning.__call__)."""

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return decode_chunk(plan, pending, int(batch["id"][0]))

    scale = plan.chunk_clips // CHUNK_CLIPS
    pool = pool_for_chunks(pool, plan.chunk_clips)
    for positions in runs_of(pending.num_chunks):
        yield from caption_decoded(plan, pool, history, positions, decode, block_bytes=scale * _TARGET_BLOCK_BYTES)


def pool_for_chunks(pool: PoolConfig, chunk_clips: int) -> PoolConfig:
    """Return the pool for larger chunks: as many clips in an engine as with chunks of 32, but two chunks at least."""
    scale = chunk_clips // CHUNK_CLIPS
    if scale == 1:
        return pool
    batches = max(2, -(-pool.concurrent_batches // scale))
    larger = {"clips_per_commit": pool.clips_per_commit * scale, "concurrent_batches": batches}
    return pool.model_copy(update=larger)


def decode_memory(plan: CaptionPlan, pool: PoolConfig) -> float | None:
    """Return the bytes that a decode task reserves, but no more than a node has; None where no node tells."""
    how = plan.show
    frame_bytes = 3 * how.side**2
    shown_bytes = plan.chunk_clips * frame_bytes * (1 if how.kind == GRID else how.num_frames)
    # Pixels as they are shown, side by side in a column, and in a block; videos as they are read, and cut into clips.
    wanted = 3 * shown_bytes + 2 * MAX_READ_BYTES
    nodes = [node for node in ray.nodes() if node["Alive"] and matches(node["Labels"] or {}, pool.decode_labels)]
    most = max((node["Resources"].get("memory", 0) for node in nodes), default=0)
    return min(wanted, most) or None


def caption_decoded(
    plan: CaptionPlan,
    pool: PoolConfig,
    history: PoolHistory,
    numbers: range,
    decode: Callable[[dict[str, np.ndarray]], Any],
    *,
    block_bytes: int,
) -> Iterator[dict[str, list]]:
    """Caption what `decode` makes of each of the `numbers`: the columns of `decode_chunk`, at once or chunk by chunk.

    Yields columns of counts as batches are committed. Blocks between the two stages have about `block_bytes`.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = block_bytes
    # One actor that cannot start is an error to tell; one that dies is started again.
    context.actor_init_retry_on_errors = False
    # On the driver's node: that one's death ends the job anyway.
    home = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    ledger = CaptionLedger.options(scheduling_strategy=home).remote()
    with DataContext.current(context):
        shown = dataset_of(numbers).map_batches(
            decode,
            batch_size=1,
            num_cpus=pool.decode_cpus,
            memory=decode_memory(plan, pool),
            compute=TaskPoolStrategy(size=pool.max_decode_tasks),
            label_selector=dict(pool.decode_labels) or None,
        )
        counts = shown.map_batches(
            Captioning,
            fn_constructor_args=(plan, ledger, pool.max_attempts, most_deaths(pool.max_attempts, pool.max_deaths)),
            batch_size=pool.clips_per_commit,
            compute=pool_of_engines(pool),
            # Not decoding's: operators of equal resources are fused, and decoding would queue in the actor.
            num_cpus=pool.cpus_per_engine,
            num_gpus=pool.gpus_per_engine,
            resources=pool.resources or None,
            label_selector=dict(pool.engine_labels) or None,
        )
        counts.set_name("caption")
        try:
            with watched(ledger, history), unproven_taken_back(ledger, plan.output):
                for batch in counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                    yield batch.to_pydict()
        finally:
            ray.kill(ledger)
