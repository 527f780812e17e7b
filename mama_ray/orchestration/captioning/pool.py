"""The pool of engines: what each reserves, how many there are, and how many there were."""

import math
import os
import time
from dataclasses import dataclass, field

from ray.data import ActorPoolStrategy

from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.cluster.placement import Share, require_room

_POOL_OPERATOR = "Captioning"
_POOL_EVERY_S = 0.5


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
    return ActorPoolStrategy(
        min_size=pool.min_size,
        max_size=pool.max_size,
        initial_size=pool.initial_size,
        max_concurrent_calls_per_actor=pool.concurrent_batches,
        max_tasks_in_flight_per_actor=2 * pool.concurrent_batches,
        enable_true_multi_threading=True,
    )


def pool_watch(history: PoolHistory) -> type:
    """Return a class of callbacks for Ray Data's executor that notes the size of the pool.

    Ray Data tells the size nowhere else but in its dashboard; where its inside changes the history stays empty.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    class PoolWatch(ExecutionCallback):
        _next = 0.0

        def on_execution_step(self, executor) -> None:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _POOL_EVERY_S
            for operator in getattr(executor, "_topology", None) or ():
                if _POOL_OPERATOR in operator.name and hasattr(operator, "_actor_pool"):
                    history.note(operator._actor_pool.num_running_actors())

        def after_execution_succeeds(self, executor) -> None:
            history.note(0)

    return PoolWatch
