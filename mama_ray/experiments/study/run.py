"""The controlled study: does the method work, in which regime, and why; every run a Ray task on one core.

python jobs/study.py [configs/study/NAME.yaml] --storage FOLDER     # started again with the same: goes on

What a run found is kept under the hash of all that it depends on, so a study can be stopped at any point, and one that
is changed does only what is new.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from mama_ray.config import config_to_yaml
from mama_ray.errors import UserError, unknown_name
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.cell_store import CellStore
from mama_ray.experiments.study.forecast import describe_plan
from mama_ray.experiments.study.inputs import StudyInputs
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.kept_results import KeptResults
from mama_ray.experiments.study.plan import plan_runs
from mama_ray.experiments.study.records import collect_results, current_command
from mama_ray.experiments.study.report.page import write_study_figures, write_study_report
from mama_ray.experiments.study.report.quotes import write_quotes
from mama_ray.experiments.study.report.tables import study_tables_markdown
from mama_ray.experiments.study.results import read_experiments, write_experiment
from mama_ray.experiments.study.tuning import tune, tuning_of, val_recall
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, absolute_uri, join_uri

logger = logging.getLogger(__name__)


def study(job: StudyJob) -> str:
    """Run what is missing of a study and write its results and report; returns the line that names the report."""
    storage = absolute_uri(job.storage)
    if "://" in storage:
        raise UserError("storage of a study", got=job.storage, wanted="a folder: runs map its files into memory")
    results = Path(job.results or join_uri(storage, "results"))
    report = absolute_uri(job.report or join_uri(storage, "report"))
    if job.plan:
        *lines, last = describe_plan(job, Path(storage), _kept_of(job, results)).splitlines()
        for line in lines:
            logger.info("%s", line)
        return last
    if not job.render_only:
        run_experiments(job, Path(storage), results)
    experiments = read_experiments(results)
    page = write_study_report(Place.of(report), experiments)
    write_study_figures(Path(report), experiments)
    (Place.of(report) / "tables.md").write_whole(study_tables_markdown(experiments))
    for document in job.documents:
        write_quotes(Path(document), experiments, part=job.part)
    return f"{sum(len(found.runs) for found in experiments.values())} runs: {page}"


def _kept_of(job: StudyJob, results: Path) -> KeptResults:
    return KeptResults.of(results) if job.continues_results else KeptResults({}, {})


def run_experiments(job: StudyJob, storage: Path, results: Path) -> None:
    """Tune, run every cell that has no result yet, and write the file of each experiment when it is whole."""
    tuning_of(job).plan()
    planned = plan_runs(job.cell, job.asked, job.methods, {}, job.seeds)
    for name in {run.cell.captions for run in planned} - {None}:  # mistakes show before anything is made
        if name not in job.captioning:
            raise unknown_name("captions of a cell", name, job.captioning)
    ensure_writable(str(storage))
    storage.mkdir(parents=True, exist_ok=True)
    with Lease(Place.of(storage) / LEASE_NAME, "study"):
        _run_experiments(job, storage, results)


def _run_experiments(job: StudyJob, storage: Path, results: Path) -> None:
    (Place.of(storage) / "study.yaml").write_whole(config_to_yaml(job))
    connect()
    inputs = StudyInputs(job, storage)
    store = CellStore(inputs, storage / "cells", num_parallel=job.num_parallel)

    kept = _kept_of(job, results)

    def score(cells: Sequence[CellConfig]) -> list[float]:
        names = [store.hash_of(cell) for cell in cells]
        missing = {name: cell for name, cell in zip(names, cells, strict=True) if name not in kept.tuning}
        found = store.run_all(list(missing.values()), label="tuning")
        known = kept.tuning | {name: val_recall(one) for name, one in zip(missing, found, strict=True)}
        return [known[name] for name in names]

    chosen, table = tune(tuning_of(job), score, num_widenings=job.tuning_widenings, name_of=store.hash_of)
    for method, settings in chosen.items():
        logger.info("tuned %s: %s", method, settings)
    runs = plan_runs(job.cell, job.asked, job.methods, job.take_over(chosen), job.seeds)
    command = current_command()
    for name, experiment in job.asked.items():
        own = [run for run in runs if run.experiment == name]
        hashes = [store.hash_of(run.cell) for run in own]
        if kept.has(name, hashes):
            logger.info("%s: taken over from %s", name, results)
            continue
        found = store.run_all([run.cell for run in own], label=name)
        path = write_experiment(collect_results(name, experiment, job, own, found, hashes, table, command), results)
        logger.info("%s", path)
