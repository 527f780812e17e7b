"""The pool of engines: whether it fits the cluster, how Ray Data makes it, and how many engines there were."""

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.cluster.placement import Share, require_room

_POOL_EVERY_S = 1.0
_ANSWER_S = 5.0


def fit_pool(pool: PoolConfig, *, is_cluster: bool) -> PoolConfig:
    """Return the pool with its decode tasks bounded where this machine, whose CPUs Ray counts twice, is all there is.

    Raises UserError where the smallest pool and one decode task do not fit: they would wait for ever. A cluster may
    grow, so there it is only a warning.
    """
    if not is_cluster and pool.max_decode_tasks is None:
        # More would take the engines' cores from them: decoding is the faster of the two, and can wait.
        free = (os.cpu_count() or 1) - math.ceil(pool.min_size * pool.cpus_per_engine)
        pool = pool.model_copy(update={"max_decode_tasks": max(1, free)})
    engine = {"CPU": pool.cpus_per_engine, "GPU": pool.gpus_per_engine, **pool.resources}
    engines = Share({name: pool.min_size * amount for name, amount in engine.items()}, pool.engine_labels)
    decoding = Share({"CPU": pool.decode_cpus}, pool.decode_labels)
    remedy = "lower pool.min_size or what an engine reserves"
    if pool.engine_labels or pool.decode_labels:
        remedy += ", or leave out pool.engine_labels and pool.decode_labels"
    require_room("the pool", [engines, decoding], is_cluster=is_cluster, remedy=remedy)
    return pool


@dataclass
class PoolHistory:
    """How many engines were alive, as (seconds since the start, engines), one entry per change."""

    started: float = field(default_factory=time.monotonic)
    sizes: list[tuple[float, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Engines alive now."""
        return self.sizes[-1][1] if self.sizes else 0

    def note(self, size: int) -> None:
        """Note a size; only changes are kept."""
        if size != self.size:
            self.sizes.append((time.monotonic() - self.started, size))


def pool_of_engines(pool: PoolConfig) -> ActorPoolStrategy:
    """Return how many actors Ray Data starts, and how many batches it has in each."""
    return ActorPoolStrategy(
        min_size=pool.min_size,
        max_size=pool.max_size,
        initial_size=pool.initial_size,
        max_concurrent_calls_per_actor=pool.concurrent_batches,
        max_tasks_in_flight_per_actor=2 * pool.concurrent_batches,
        enable_true_multi_threading=True,
    )


@contextlib.contextmanager
def watched(ledger: ray.actor.ActorHandle, history: PoolHistory) -> Iterator[None]:
    """Note how many engines the ledger hears of, as long as the block runs; none are left at its end."""
    is_over = threading.Event()

    def watch() -> None:
        is_last = False  # the last look is for a job that was over before the first
        while not is_last:
            is_last = is_over.wait(_POOL_EVERY_S)
            # What tells of the job must not end it: a ledger that starts anew answers the next time.
            with contextlib.suppress(RayError):
                history.note(ray.get(ledger.num_engines.remote(), timeout=_ANSWER_S))

    watcher = threading.Thread(target=watch, name="pool-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
        history.note(0)
