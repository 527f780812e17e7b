"""What a sweep is to do, worked out of its config before anything is started."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from pydantic import BaseModel

from mama_ray.config import ConfigError, decisive_values, with_overrides
from mama_ray.masking import mask_secrets
from mama_ray.orchestration.sweep.job import DEFAULT_SPACE, SweepJob
from mama_ray.orchestration.sweep.space import check_search_space, edges_of, point_of, values_of
from mama_ray.orchestration.training.job import TrainJob, with_absolute_paths
from mama_ray.storage.places import absolute_uri, join_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is to do, worked out of its config before anything is started.

    settings: by variant of an ablation, None for a search. places: of a search, the absolute place of each choice that
    is a relative one. definition: what must not change between starts, with places as they were given.
    """

    uri: str
    storage: str
    base: TrainJob
    distributions: dict[str, BaseDistribution]
    settings: dict[str, dict[str, Any]] | None
    places: dict[str, dict[str, str]]
    first_points: list[dict[str, Any]]
    num_samples: int
    definition: str

    def overrides_of(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config values that a point of the study stands for: its own, or those of its variant and seed."""
        if self.settings is not None:
            return self.settings[point["variant"]] | {"seed": point["seed"]}
        return {key: self.places.get(key, {}).get(value, value) for key, value in point.items()}


def plan_sweep(job: SweepJob) -> SweepPlan:
    """Work out what a sweep is to do; raises ConfigError for keys and values that its training job refuses."""
    storage = absolute_uri(job.storage)
    uri = join_uri(storage, job.run)
    base = with_absolute_paths(job.train).model_copy(update={"storage": join_uri(uri, "trials")})
    settings, places = None, {}
    if job.variants:
        settings = {name: _settings_of(base, name, own) for name, own in job.variants.items()}
        distributions: dict[str, BaseDistribution] = {
            "variant": CategoricalDistribution(list(job.variants)),
            "seed": CategoricalDistribution(list(job.seeds)),
        }
        points = [{"variant": name, "seed": seed} for seed in job.seeds for name in job.variants]
    else:
        distributions = check_search_space(base, DEFAULT_SPACE if job.search_space is None else job.search_space)
        places = {key: found for key, one in distributions.items() if (found := _places_of(base, key, one))}
        point = point_of(base, distributions) or point_of(job.train, distributions)
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
        settings=settings,
        places=places,
        first_points=points,
        num_samples=len(points) if job.variants else job.num_samples,
        definition=json.dumps(
            mask_secrets(kept | ({"variants": job.variants} if job.variants else {})), sort_keys=True
        ),
    )


def _settings_of(base: TrainJob, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a variant's settings with absolute places; ConfigError names the variant that its job refuses."""
    try:
        return _with_absolute_places(base, settings)
    except ConfigError as error:
        raise ConfigError(f"variant {name} is refused: {error}") from error


def _places_of(base: TrainJob, key: str, distribution: BaseDistribution) -> dict[str, str]:
    texts = [value for value in edges_of(distribution) if isinstance(value, str)]
    found = {value: _with_absolute_places(base, {key: value})[key] for value in texts}
    return {value: place for value, place in found.items() if place != value}


def _with_absolute_places(base: TrainJob, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with places that a trial finds, which Ray Tune runs in a folder of its own."""
    job = with_overrides(base, settings)
    given, absolute = (values_of(one, settings) for one in (job, with_absolute_paths(job)))
    changed = {key: value for key, value in absolute.items() if value != given[key]}
    plain = {key: value.model_dump() if isinstance(value, BaseModel) else value for key, value in changed.items()}
    return settings | plain


def jobs_of(plan: SweepPlan) -> Iterator[tuple[str, TrainJob]]:
    """Yield what is trained, with its name: every variant, or the base with each choice and each end of a domain."""
    for name, settings in (plan.settings or {}).items():
        yield f"variant {name}", with_overrides(plan.base, settings)
    for key, distribution in () if plan.settings is not None else plan.distributions.items():
        for value in edges_of(distribution):
            yield f"{key} = {value}", with_overrides(plan.base, plan.overrides_of({key: value}))
