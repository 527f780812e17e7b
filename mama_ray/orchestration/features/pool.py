"""Chunks through a pool of actors: one in each at a time, given again where an actor died, counted as they end."""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayActorError

from mama_ray.data.region_features.table import CHUNK_CLIPS
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.entry import find_user_error
from mama_ray.orchestration.cluster.placement import Share, require_room
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.features.actor import FeatureActor
from mama_ray.orchestration.features.job import ActorConfig
from mama_ray.orchestration.features.plan import FeaturePlan

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0


def fit_pool(actors: ActorConfig, *, is_cluster: bool) -> None:
    """Raise UserError where one actor can never be had; a cluster may grow, so there it is only a warning."""
    wanted = {"CPU": actors.cpus, "GPU": actors.gpus, **actors.resources}
    require_room("an actor", [Share(wanted, {})], is_cluster=is_cluster, remedy="lower what actors reserve")


def run_chunks(plan: FeaturePlan, chunks: Sequence[int], actors: ActorConfig) -> Iterator[tuple[int, int, float]]:
    """Yield `FeatureActor.run`'s counts as chunks are committed.

    Raises UserError where actors die of a chunk again and again, and what an actor raises.
    """
    remote = ray.remote(FeatureActor).options(
        num_cpus=actors.cpus, num_gpus=actors.gpus, resources=actors.resources or None, max_restarts=-1
    )
    pool = [remote.remote(plan, actors.gpus > 0) for _ in range(min(actors.number, len(chunks)))]
    pending, deaths = deque(chunks), Counter[int]()
    running = {}
    try:
        while pending or running:
            idle = [actor for actor in pool if all(actor is not busy for busy, _ in running.values())]
            while pending and idle:
                actor, chunk = idle.pop(), pending.popleft()
                running[actor.run.remote(chunk)] = (actor, chunk)
            done, _ = ray.wait(list(running), num_returns=1)
            _, chunk = running.pop(done[0])
            try:
                yield result_of(done[0])
            except RayActorError as error:
                if (known := find_user_error(error)) is not None:  # of its start
                    raise known from None
                deaths[chunk] += 1
                if deaths[chunk] >= actors.max_attempts:
                    raise _too_many(plan, chunk, deaths[chunk]) from None
                logger.warning("an actor died at work on chunk %d; it starts anew", chunk)
                pending.append(chunk)  # behind the others: what it does may not be its own fault
                time.sleep(_AGAIN_S)
    finally:
        for actor in pool:
            ray.kill(actor)


def _too_many(plan: FeaturePlan, chunk: int, num_deaths: int) -> UserError:
    clips = ray.get(plan.table).slice(chunk * CHUNK_CLIPS, CHUNK_CLIPS)["clip_id"].to_pylist()
    return UserError(
        "actors die at work on the same clips",
        got=f"{num_deaths} deaths with clips {', '.join(clips)}",
        remedy="give actors more memory or a smaller detector, lower decode.max_memory_gib, or look at these clips",
    )
