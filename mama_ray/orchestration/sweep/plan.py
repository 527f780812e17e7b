"""What a sweep is to do, worked out of its config before anything is started."""

import json
import logging
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from mama_ray.config import ConfigError, decisive_values, with_overrides
from mama_ray.masking import mask_secrets
from mama_ray.orchestration.sweep.job import DEFAULT_SPACE, SweepJob
from mama_ray.orchestration.sweep.space import check_search_space, point_of
from mama_ray.orchestration.training.job import TrainJob, with_absolute_paths
from mama_ray.storage.places import absolute_uri, join_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is to do, worked out of its config before anything is started.

    settings: by variant of an ablation, None for a search. definition: what must not change between starts.
    """

    uri: str
    storage: str
    base: TrainJob
    distributions: dict[str, BaseDistribution]
    settings: dict[str, dict[str, Any]] | None
    first_points: list[dict[str, Any]]
    num_samples: int
    definition: str


def plan_sweep(job: SweepJob) -> SweepPlan:
    """Work out what a sweep is to do; raises ConfigError for keys and values that its training job refuses."""
    storage = absolute_uri(job.storage)
    uri = join_uri(storage, job.run)
    base = with_absolute_paths(job.train).model_copy(update={"storage": join_uri(uri, "trials")})
    if job.variants:
        for name, settings in job.variants.items():
            try:
                with_overrides(base, settings)
            except ConfigError as error:
                raise ConfigError(f"variant {name} is refused: {error}") from error
        distributions = {
            "variant": CategoricalDistribution(list(job.variants)),
            "seed": CategoricalDistribution(list(job.seeds)),
        }
        points = [{"variant": name, "seed": seed} for seed in job.seeds for name in job.variants]
    else:
        distributions = check_search_space(base, DEFAULT_SPACE if job.search_space is None else job.search_space)
        point = point_of(base, distributions)
        if point is None:
            logger.warning("the base config lies outside the search space: it is not among the trials")
        points = [] if point is None else [point]
    # Everything else must stay, or the trials could not be compared; so must the steps at which they are.
    kept = decisive_values(base) | {"checkpoint_every": base.checkpoint_every}
    return SweepPlan(
        uri=uri,
        storage=storage,
        base=base,
        distributions=distributions,
        settings=dict(job.variants) or None,
        first_points=points,
        num_samples=len(points) if job.variants else job.num_samples,
        definition=json.dumps(
            mask_secrets(kept | ({"variants": job.variants} if job.variants else {})), sort_keys=True
        ),
    )
