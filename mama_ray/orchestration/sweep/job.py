"""What a sweep is asked for."""

from typing import Any, Literal

from pydantic import Field, model_validator

from mama_ray.config import Config
from mama_ray.errors import unknown_name
from mama_ray.orchestration.sweep.space import SearchSpace
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.reporting.metrics import RETRIEVAL_KEYS

# What a trial reports at every validation.
OBJECTIVES = (*(f"val/{key}" for key in RETRIEVAL_KEYS), "val/accuracy", "throughput/step_s")
DEFAULT_SPACE: SearchSpace = {
    "objective.margin": {"uniform": [-0.2, 0.2]},
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

    run: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
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
            if metric not in OBJECTIVES:
                raise unknown_name("objective", metric, OBJECTIVES)
            if not self.variants:
                require_measured(metric, self.train)
        return self


def require_measured(metric: str, train: TrainJob) -> None:
    """Raise ValueError for a metric that no trial would tell."""
    if metric == "val/accuracy" and not (train.answers_questions or train.classifies):
        raise ValueError("objectives: val/accuracy needs train.task.kind question_answering or classification")
    if metric.startswith("val/") and metric != "val/accuracy" and not train.learns_contrast:
        raise ValueError(f"objectives: {metric} is not measured without the contrast: take val/accuracy")
