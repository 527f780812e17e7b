"""The controlled study: does the method work, in which regime, and why; every run a Ray task on one core.

python jobs/study.py [configs/study/NAME.yaml] --storage FOLDER     # started again with the same: goes on

What a run found is kept under the hash of all that it depends on, so a study can be stopped at any point, and one that
is changed does only what is new.
"""

import logging
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from pydantic import Field, model_validator

from mama_ray.config import Config, config_to_yaml
from mama_ray.errors import UserError, unknown_name
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.study_cells import CellStore
from mama_ray.orchestration.study_inputs import StudyInputs
from mama_ray.orchestration.study_results import collect_results, current_command
from mama_ray.reporting.study_page import study_tables_markdown, write_study_figures, write_study_report
from mama_ray.reporting.study_results import read_experiments, write_experiment
from mama_ray.storage.places import absolute_uri, join_uri
from mama_ray.study.cell import CellConfig
from mama_ray.study.plan import ExperimentConfig, choose, plan_runs, plan_tuning
from mama_ray.study.pretrain import PretrainingConfig

logger = logging.getLogger(__name__)


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


def study(job: StudyJob) -> str:
    """Run what is missing of a study and write its results and report; returns the line that names the report."""
    storage = absolute_uri(job.storage)
    if "://" in storage:
        raise UserError("storage of a study", got=job.storage, wanted="a folder: runs map its files into memory")
    results = Path(job.results or join_uri(storage, "results"))
    report = absolute_uri(job.report or join_uri(storage, "report"))
    if not job.render_only:
        run_experiments(job, Path(storage), results)
    experiments = read_experiments(results)
    page = write_study_report(pafs.LocalFileSystem(), report, experiments)
    write_study_figures(Path(report), experiments)
    Path(report).mkdir(parents=True, exist_ok=True)
    Path(report, "tables.md").write_text(study_tables_markdown(experiments))
    return f"{sum(len(found.runs) for found in experiments.values())} runs: {page}"


def run_experiments(job: StudyJob, storage: Path, results: Path) -> None:
    """Tune, run every cell that has no result yet, and write the file of each experiment when it is whole."""
    trials = plan_tuning(job.cell, job.methods, job.tuning, job.tuning_seeds)
    planned = plan_runs(job.cell, job.experiments, job.methods, {}, job.seeds)
    for name in {run.cell.captions for run in planned} - {None}:  # mistakes show before anything is made
        if name not in job.captioning:
            raise unknown_name("captions of a cell", name, job.captioning)
    storage.mkdir(parents=True, exist_ok=True)
    (storage / "study.yaml").write_text(config_to_yaml(job))
    connect()
    inputs = StudyInputs(job, storage)
    store = CellStore(inputs, storage / "cells", num_parallel=job.num_parallel)
    tuned = store.run_all([trial.cell for trial in trials], label="tuning")
    scores = [found["curve"][found["selected"]]["val"]["t2v_R@1"] for found in tuned]
    chosen, table = choose(zip(trials, scores, strict=True))
    for method, settings in chosen.items():
        logger.info("tuned %s: %s", method, settings)
    runs = plan_runs(job.cell, job.experiments, job.methods, chosen, job.seeds)
    command = current_command()
    for name, experiment in job.experiments.items():
        own = [run for run in runs if run.experiment == name]
        found = store.run_all([run.cell for run in own], label=name)
        hashes = [store.hash_of(run.cell) for run in own]
        path = write_experiment(collect_results(name, experiment, job, own, found, hashes, table, command), results)
        logger.info("%s", path)
