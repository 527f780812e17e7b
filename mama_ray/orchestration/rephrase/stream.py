"""The Ray Data pipeline of a rephrasing job: numbers of pending chunks go to a pool of actors that grows and shrinks.

Nothing about the corpus passes through the driver, and the actors commit to the storage themselves: what was committed
is done, whatever happens to the pipeline.
"""

from collections.abc import Iterator

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mama_ray.orchestration.captioning.deaths import unproven_taken_back
from mama_ray.orchestration.captioning.job import most_deaths
from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.captioning.pool import PoolHistory, watched
from mama_ray.orchestration.cluster.pipelines import dataset_of, runs_of
from mama_ray.orchestration.cluster.placement import Share, require_room
from mama_ray.orchestration.rephrase.actor import CALLS_AT_A_TIME, Rephrasing
from mama_ray.orchestration.rephrase.job import RephrasePoolConfig
from mama_ray.orchestration.rephrase.plan import RephrasePlan


def require_pool(pool: RephrasePoolConfig, *, is_cluster: bool) -> None:
    """Raise UserError where the smallest pool does not fit: it would wait for ever. A cluster may grow, so there it is
    only a warning."""
    engine = {"CPU": pool.cpus_per_engine, "GPU": pool.gpus_per_engine, **pool.resources}
    engines = Share({name: pool.min_size * amount for name, amount in engine.items()}, pool.engine_labels)
    remedy = "lower pool.min_size or what an engine reserves"
    require_room("the pool", [engines], is_cluster=is_cluster, remedy=remedy)


def rephrase_chunks(
    plan: RephrasePlan, pending: PendingChunks, pool: RephrasePoolConfig, history: PoolHistory
) -> Iterator[dict[str, list]]:
    """Rephrase what is pending; yields columns of counts as chunks are committed (see Rephrasing.__call__)."""
    for positions in runs_of(pending.num_chunks):
        yield from _rephrase_some(plan, pending, pool, history, positions)


def _rephrase_some(
    plan: RephrasePlan, pending: PendingChunks, pool: RephrasePoolConfig, history: PoolHistory, positions: range
) -> Iterator[dict[str, list]]:
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
        max_concurrent_calls_per_actor=CALLS_AT_A_TIME,
        max_tasks_in_flight_per_actor=2 * CALLS_AT_A_TIME,
        enable_true_multi_threading=True,
    )
    deaths = (pool.max_attempts, most_deaths(pool.max_attempts, pool.max_deaths))
    with DataContext.current(context):
        counts = dataset_of(positions).map_batches(
            Rephrasing,
            fn_constructor_args=(plan, pending, ledger, *deaths, pool.gpus_per_engine > 0),
            batch_size=1,
            compute=actors,
            num_cpus=pool.cpus_per_engine,
            num_gpus=pool.gpus_per_engine,
            resources=pool.resources or None,
            label_selector=dict(pool.engine_labels) or None,
        )
        counts.set_name("rephrase")
        try:
            with watched(ledger, history), unproven_taken_back(ledger, plan.output):
                for batch in counts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                    yield batch.to_pydict()
        finally:
            ray.kill(ledger)
