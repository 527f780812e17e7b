"""The sweep: Ray Tune runs training jobs at points that Optuna proposes, or the variants of an ablation.

python jobs/tune.py [configs/sweep/NAME.yaml] --storage URI --run NAME     # started again with the same two: resumes
"""

import json
import logging
import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import optuna
import ray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import TPESampler
from pydantic import Field, model_validator
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from mama_ray.config import Config, ConfigError, config_to_yaml, with_overrides
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.settings import MAY_CHANGE
from mama_ray.orchestration.search_space import SearchSpace, check_search_space, point_of
from mama_ray.orchestration.sweep_report import failures_of, write_outcome
from mama_ray.orchestration.sweep_search import StudyHalving, StudySearch
from mama_ray.orchestration.sweep_study import StudyStore, num_finished, requeue_unfinished
from mama_ray.orchestration.sweep_trial import run_trial
from mama_ray.orchestration.training.data import load_run_data
from mama_ray.orchestration.training.job import TrainJob, inputs_of, with_absolute_paths
from mama_ray.orchestration.training.run import check_sizes
from mama_ray.reporting.metrics import find_metric
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import absolute_uri, filesystem_for, join_uri, write_text

logger = logging.getLogger(__name__)

# What a trial's own process reserves. No CPU: it waits for its workers, and a fraction taken would spoil a whole one.
_TRIAL_MEMORY_BYTES = 512 << 20
_TRIAL_FAILURES = 1  # a trial whose node is lost is started again, from its own checkpoint

DEFAULT_SPACE: SearchSpace = {
    "objective.margin": {"uniform": [0.0, 0.4]},
    "optim.lr": {"log_uniform": [3e-4, 3e-3]},
    "meta.lr": {"log_uniform": [3e-4, 3e-2]},
    "meta.inner.lr": {"log_uniform": [0.01, 0.2]},
    "meta.meta_every": {"int": [1, 4]},
}


class HalvingConfig(Config):
    """Early stopping of trials that fall behind (ASHA)."""

    enabled: bool = True
    """Whether trials are stopped early; with several objectives none is, since there is no order among them."""

    grace_share: float = Field(0.25, gt=0, le=1)
    """Share of the steps that every trial may take; the first comparison comes after it."""

    factor: float = Field(3.0, gt=1)
    """At each rung the best 1/factor go on; the next rung is factor times as far."""


class SamplerConfig(Config):
    """Optuna's tree-structured Parzen estimator (TPE)."""

    seed: int = Field(0, ge=0)
    """Seed of the proposals."""

    num_startup_trials: int = Field(5, ge=0)
    """Random points before the sampler begins to learn from results."""


class SweepJob(Config):
    """A search over a training job's settings, or an ablation: named variants times seeds."""

    storage: str = "runs"
    """Folder or URI under which the sweep's folder lies; its trials are runs in <storage>/<run>/trials."""

    run: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the sweep; one that exists is resumed."""

    train: TrainJob = TrainJob(num_workers=1, num_epochs=4.0, checkpoint_every=24, num_checkpoints_to_keep=1)
    """What the trials share; its storage and run are not used. It is the first trial, if it lies in the space."""

    search_space: SearchSpace | None = None
    """Domains by dotted config key: {uniform: [low, high]}, {log_uniform: [low, high]}, {int: [low, high]} or
    {choice: [a, b, ...]}; null is margin, learning rates and meta_every (DEFAULT_SPACE). An ablation has none."""

    variants: dict[str, dict[str, Any]] = {}
    """Ablation: settings by dotted key for each named variant, in the place of a search space. The first is what the
    others are compared with."""

    seeds: tuple[int, ...] = (0,)
    """Ablation: every variant is trained with each of these."""

    objectives: dict[str, Literal["max", "min"]] = {"val/t2v_R@1": "max"}
    """Metrics of the val split, or throughput/step_s, and whether more or less is better. The first names the best."""

    num_samples: int = Field(12, ge=1)
    """Trials, those of earlier starts included. An ablation takes as many as it has variants and seeds."""

    max_concurrent: int | None = Field(None, ge=1)
    """Trials at a time; null is as many as the cluster's CPUs and GPUs hold when the sweep starts."""

    halving: HalvingConfig = HalvingConfig()
    """Early stopping."""

    sampler: SamplerConfig = SamplerConfig()
    """How points are proposed."""

    study: str | None = None
    """URL of the study's database (sqlite:////path/study.db, postgresql://host/db); null is study.db in the sweep's
    folder. Optuna's dashboard and tools read it."""

    @model_validator(mode="after")
    def _is_one_search(self) -> "SweepJob":
        if self.variants and self.search_space is not None:
            raise ValueError("a sweep has a search_space or variants, not both")
        if len(set(self.seeds)) < max(1, len(self.seeds)):
            raise ValueError(f"seeds {list(self.seeds)}: wanted one or more, all different")
        if not self.objectives:
            raise ValueError("objectives is empty: wanted such as {val/t2v_R@1: max}")
        for metric in self.objectives:
            if not metric.startswith("val/") and metric != "throughput/step_s":
                raise ValueError(
                    f"objectives: {metric} is refused: a sweep chooses by the val split (val/...) or by "
                    "throughput/step_s; the test split is for one evaluation of what it has chosen"
                )
            find_metric(metric)
        return self


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


def sweep(job: SweepJob) -> str:
    """Run or resume a sweep; returns the line that names the best config."""
    plan = plan_sweep(job)
    filesystem, path = filesystem_for(plan.uri)
    ensure_writable(plan.uri)
    ensure_readable(*inputs_of(plan.base))
    with StudyStore(job.study, job.run, filesystem, path) as store:
        study = store.open_study(
            plan.distributions,
            job.objectives,
            sampler=_sampler(job, num_trials=0),
            first_points=plan.first_points,
            definition=plan.definition,
        )
        write_text(filesystem, f"{path}/config.yaml", config_to_yaml(job))
        num_begun = requeue_unfinished(study)
        num_left = plan.num_samples - num_finished(study)
        failures: dict[str, str] = {}
        if num_left > 0:
            connect()
            base, num_steps = _prepare(job, plan)
            told = f", {num_begun} of them begun before" if num_begun else ""
            logger.info("sweep %s: %d of %d trials to run%s", plan.uri, num_left, plan.num_samples, told)
            search = StudySearch(
                store,
                plan.distributions,
                job.objectives,
                sampler=_sampler(job, num_trials=len(study.get_trials(deepcopy=False))),
                num_samples=plan.num_samples,
            )
            failures = _run_trials(job, plan, base, search, _scheduler(job, study, num_steps), num_left)
        return write_outcome(job, plan, study, filesystem, path, failures)


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
    may_change = MAY_CHANGE - {"checkpoint_every"}
    kept = {key: value for key, value in base.model_dump(mode="json").items() if key not in may_change}
    return SweepPlan(
        uri=uri,
        storage=storage,
        base=base,
        distributions=distributions,
        settings=dict(job.variants) or None,
        first_points=points,
        num_samples=len(points) if job.variants else job.num_samples,
        definition=json.dumps(kept | ({"variants": job.variants} if job.variants else {}), sort_keys=True),
    )


def _sampler(job: SweepJob, *, num_trials: int) -> TPESampler:
    """Return the sampler of a start; each has its own seed, or the first random proposals would come again."""
    return TPESampler(seed=job.sampler.seed + num_trials, n_startup_trials=job.sampler.num_startup_trials)


def _scheduler(job: SweepJob, study: optuna.Study, num_steps: int) -> StudyHalving | None:
    if not job.halving.enabled or len(job.objectives) > 1 or job.variants:
        return None
    ((metric, mode),) = job.objectives.items()
    grace = max(1, round(num_steps * job.halving.grace_share))
    return StudyHalving(study, metric, mode, num_steps=num_steps, grace=grace, factor=job.halving.factor)


def _prepare(job: SweepJob, plan: SweepPlan) -> tuple[TrainJob, int]:
    """Make the shards if need be and check them once for all trials; returns the base on them and its steps."""
    base = plan.base
    if base.shards is None:
        base = base.model_copy(update={"shards": absolute_uri(embedded_shards(base.corpus, plan.storage))})
    data = load_run_data(base.shards, base.data, seed=base.seed, tokenizer=base.model.pretrained)
    check_sizes(base, data)
    counts = data.summary["num_clips"]
    if any(metric.startswith("val/") for metric in job.objectives) and not counts["val"]:
        raise UserError("no clips in the val split", got=base.shards, wanted="some: a sweep chooses by them")
    return base, math.ceil(base.num_epochs * counts["train"] / base.global_batch_size)


def _run_trials(
    job: SweepJob,
    plan: SweepPlan,
    base: TrainJob,
    search: StudySearch,
    scheduler: StudyHalving | None,
    num_left: int,
) -> dict[str, str]:
    """Run the trials that are left; returns why runs failed, by run."""
    concurrent = min(num_left, job.max_concurrent or num_concurrent(base, ray.cluster_resources()))
    logger.info("%d trials at a time", concurrent)
    trial = tune.with_parameters(run_trial, base=base, settings=plan.settings, num_runs=concurrent)
    filesystem, path = filesystem_for(plan.uri)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its banner and tables; the searcher tells of every trial
    results = tune.Tuner(
        tune.with_resources(trial, PlacementGroupFactory([{"memory": _TRIAL_MEMORY_BYTES}])),
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=scheduler, num_samples=num_left, max_concurrent_trials=concurrent
        ),
        run_config=tune.RunConfig(
            name="ray_tune",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=_TRIAL_FAILURES),
            verbose=0,
        ),
    ).fit()
    return failures_of(results)


def num_concurrent(base: TrainJob, resources: dict[str, float]) -> int:
    """Return how many trials a cluster holds at a time: each has its workers and a CPU for decoding."""
    num_workers = base.workers.max
    fits = [resources.get("CPU", 1.0) // (num_workers * base.cpus_per_worker + 1)]
    if base.use_gpu:
        fits.append(resources.get("GPU", 0.0) // num_workers)
    return max(1, int(min(fits)))
