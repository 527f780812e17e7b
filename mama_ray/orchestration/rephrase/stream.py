"""The Ray Data pipeline of a rephrasing job: numbers of pending chunks go to a pool of actors that grows and shrinks.

Nothing about the corpus passes through the driver, and the actors commit to the storage themselves: what was committed
is done, whatever happens to the pipeline.
"""

from collections.abc import Iterator

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.captioning.pool import PoolHistory, watched
from mama_ray.orchestration.cluster.placement import Share, require_room
from mama_ray.orchestration.rephrase.actor import Rephrasing
from mama_ray.orchestration.rephrase.job import RephrasePoolConfig
from mama_ray.orchestration.rephrase.plan import RephrasePlan

# The driver keeps some kilobytes per block of the source; more chunks than these share a block.
_MAX_SOURCE_BLOCKS = 4096
# Of the tasks that make the numbers: where actors have taken all whole CPUs they would else wait for ever.
_NUMBER_CPUS = 0.25
_CALLS_AT_A_TIME = 2  # one at work in the engine, one that reads or commits


def require_pool(pool: RephrasePoolConfig, *, is_cluster: bool) -> None:
    """Raise UserError where the smallest pool does not fit: it would wait for ever. A cluster may grow, so there it is
    only a warning."""
    engine = {"CPU": pool.cpus_per_engine, "GPU": pool.gpus_per_engine, **pool.resources}
    engines = Share({name: pool.min_size * amount for name, amount in engine.items()}, pool.engine_labels)
    numbers = Share({"CPU": _NUMBER_CPUS}, {})
    remedy = "lower pool.min_size or what an engine reserves"
    require_room("the pool", [engines, numbers], is_cluster=is_cluster, remedy=remedy)


def rephrase_chunks(
    plan: RephrasePlan, pending: PendingChunks, pool: RephrasePoolConfig, history: PoolHistory
) -> Iterator[dict[str, list]]:
    """Rephrase what is pending; yields columns of counts as chunks are committed (see Rephrasing.__call__)."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    # One actor that cannot start is an error to tell; one that dies is started again.
    context.actor_init_retry_on_errors = False
    # On the driver's node: that one's death ends the job anyway.
    home = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    ledger = CaptionLedger.options(scheduling_strategy=home).remote()
    actors = ActorPoolStrategy(
        min_size=pool.min_size,
        max_size=pool.max_size,
        initial_size=pool.initial_size,
        max_concurrent_calls_per_actor=_CALLS_AT_A_TIME,
        max_tasks_in_flight_per_actor=2 * _CALLS_AT_A_TIME,
        enable_true_multi_threading=True,
    )
    with DataContext.current(context):
        num_blocks = min(pending.num_chunks, _MAX_SOURCE_BLOCKS)
        numbers = ray.data.range(pending.num_chunks, override_num_blocks=num_blocks)
        counts = numbers.map_batches(_as_they_are, batch_size=None, num_cpus=_NUMBER_CPUS).map_batches(
            Rephrasing,
            fn_constructor_args=(plan, pending, ledger, pool.max_attempts, pool.gpus_per_engine > 0),
            batch_size=1,
            compute=actors,
            num_cpus=pool.cpus_per_engine,
            num_gpus=pool.gpus_per_engine,
            resources=pool.resources or None,
            label_selector=dict(pool.engine_labels) or None,
        )
        counts.set_name("rephrase")
        try:
            with watched(ledger, history):
                for batch in counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                    yield batch.to_pydict()
        finally:
            ray.kill(ledger)


def _as_they_are(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fused with the making of the numbers, which then reserves what this does."""
    return numbers
