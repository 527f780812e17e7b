"""What a controlled study is asked for."""

from typing import Any

from pydantic import Field, model_validator

from mama_ray.config import Config
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.plan import ExperimentConfig
from mama_ray.experiments.study.pretrain import PretrainingConfig
from mama_ray.orchestration.captioning.job import CaptionJob


class StudyJob(Config):
    """Experiments, methods and seeds."""

    storage: str = "runs/study"
    """Folder, on a disk that all nodes see, of corpora, captions and the results of single runs."""

    results: str | None = None
    """Folder of the results, a small JSON file per experiment; null is `results` in the storage."""

    report: str | None = None
    """Folder of the report page and its figures; null is `report` in the storage."""

    render_only: bool = False
    """Draw the report from `results` again, without training anything."""

    pretraining: PretrainingConfig = PretrainingConfig()
    """What fine-tuning starts from."""

    cell: CellConfig = CellConfig()
    """What all runs share."""

    methods: dict[str, dict[str, Any]] = {"uniform": {}}
    """Settings by dotted key for each method."""

    tuning: dict[str, dict[str, tuple[float, ...]]] = {}
    """For each method that is tuned: the values of one setting; equally many for all."""

    tuning_seeds: tuple[int, ...] = (100, 101)
    """Seeds of the tuning."""

    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Seeds of the study: each has its own clips; methods are compared seed by seed."""

    experiments: dict[str, ExperimentConfig] = {}
    """What is compared, in the order in which it is run."""

    captioning: dict[str, CaptionJob] = {}
    """Named ways to caption the training clips, for cells that mix generated captions in."""

    num_parallel: int | None = Field(None, ge=1)
    """Runs at a time; null is one per core of this machine, or per CPU of the cluster."""

    @model_validator(mode="after")
    def _is_a_study(self) -> "StudyJob":
        both = set(self.seeds) & set(self.tuning_seeds)
        if both:
            raise ValueError(f"seeds and tuning_seeds share {sorted(both)}: what is tuned on cannot be tested on")
        if len(set(self.seeds)) < max(1, len(self.seeds)):
            raise ValueError(f"seeds {list(self.seeds)}: wanted one or more, all different")
        return self
