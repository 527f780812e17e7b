"""The sweep: Ray Tune runs training jobs at points that Optuna proposes, or the variants of an ablation.

python jobs/tune.py [configs/sweep/NAME.yaml] --storage URI --run NAME     # started again with the same two: resumes
"""

import logging
import os

import optuna
import ray
from optuna.samplers import TPESampler
from ray import tune

from mama_ray.config import config_to_yaml, load_yaml
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.settings import count_steps
from mama_ray.orchestration.sweep.checks import check_all_sizes, refuse_unsound
from mama_ray.orchestration.sweep.database import StudyStore, num_finished, requeue_unfinished
from mama_ray.orchestration.sweep.halving import RungPruner, StudyHalving
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.plan import SweepPlan, plan_sweep
from mama_ray.orchestration.sweep.report import failures_of, write_outcome
from mama_ray.orchestration.sweep.search import StudySearch
from mama_ray.orchestration.sweep.trial import run_trial
from mama_ray.orchestration.training.data import load_run_data
from mama_ray.orchestration.training.inputs import check_sizes, look_at_inputs
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.questions import load_questions
from mama_ray.orchestration.training.tokens import require_models_tokenizer
from mama_ray.storage.failures import StorageError
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, absolute_uri
from mama_ray.storage.small_files import MAX_SETTINGS_BYTES
from mama_ray.training.manifest import list_checkpoints

logger = logging.getLogger(__name__)

# What a trial's own process reserves. No CPU: it waits for its workers, and a fraction taken would spoil a whole one.
_TRIAL_MEMORY_BYTES = 512 << 20
_TRIAL_FAILURES = 1  # a trial whose node is lost is started again, from its own checkpoint


def sweep(job: SweepJob) -> str:
    """Run or resume a sweep; returns the line that names the best config."""
    plan = plan_sweep(job)
    folder = Place.of(plan.uri)
    ensure_writable(plan.uri)
    _refuse_other_jobs(folder)
    look_at_inputs(plan.base)
    with Lease(folder / LEASE_NAME, "sweep"), StudyStore(job.study, job.run, folder) as store:
        search_of = (plan.distributions, job.objectives)
        found = store.find_study(*search_of, definition=plan.definition)
        failures: dict[str, str] = {}
        base, num_steps = plan.base, 0
        if found is None:
            refuse_unsound(job, plan)
        if found is None or num_finished(found) < plan.num_samples:
            connect()
            base, num_steps = _prepare(job, plan, is_new=found is None)
        # Made only now: a start that fails on its inputs leaves no study behind, which would bind the next one.
        study = store.open_study(*search_of, first_points=plan.first_points, definition=plan.definition)
        (folder / "config.yaml").write_whole(config_to_yaml(job))
        num_begun = requeue_unfinished(study)
        num_left = plan.num_samples - num_finished(study)
        if num_left > 0:
            told = f", {num_begun} of them begun before" if num_begun else ""
            logger.info("sweep %s: %d of %d trials to run%s", plan.uri, num_left, plan.num_samples, told)
            study.sampler, study.pruner = _sampler(job, study), _pruner(job, num_steps)
            search = StudySearch(store, study, plan.distributions, job.objectives, num_samples=plan.num_samples)
            failures = _run_trials(job, plan, base, search, num_left)
        return write_outcome(job, plan, study, folder, failures)


def _refuse_other_jobs(folder: Place) -> None:
    """Raise UserError where the sweep's folder is that of a run, which could never be resumed with a sweep's config."""
    place = folder / "config.yaml"
    is_begun = place.is_file()
    values = load_yaml(place.read_text(MAX_SETTINGS_BYTES), source=place.uri) if is_begun else {}
    if (is_begun and "train" not in values) or list_checkpoints(folder):
        raise UserError("the folder of the sweep is that of another job", got=folder, remedy="give --run another name")


def _sampler(job: SweepJob, study: optuna.Study) -> TPESampler:
    """Return the sampler of a start; each has its own seed, or the first random proposals would come again."""
    num_trials = len(study.get_trials(deepcopy=False))
    return TPESampler(seed=job.sampler.seed + num_trials, n_startup_trials=job.sampler.num_startup_trials)


def _pruner(job: SweepJob, num_steps: int) -> optuna.pruners.BasePruner:
    if not job.halving.enabled or len(job.objectives) > 1 or job.variants:
        return optuna.pruners.NopPruner()
    grace = max(1, round(num_steps * job.halving.grace_share))
    return RungPruner(num_steps=num_steps, grace=grace, factor=job.halving.factor)


def _prepare(job: SweepJob, plan: SweepPlan, *, is_new: bool) -> tuple[TrainJob, int]:
    """Make the shards if need be and check them once for all trials; returns the base on them and its steps."""
    base = plan.base
    shards = base.shards or absolute_uri(embedded_shards(base.corpus, plan.storage))
    base = base.model_copy(update={"shards": shards})
    own = None if base.data.tokenizer else base.model.pretrained  # as every trial has it
    data = load_run_data(
        shards, base.data, seed=base.seed, tokenizer=own, task=base.task, reads_classes=base.reads_classes,
        needs_relevance=base.needs_relevance, mixes_captions=base.objective.mixes_captions,
    )  # fmt: skip
    require_models_tokenizer(base, data.tokenizer_files)
    counts, things = data.summary["num_clips"], "clips"
    num_places = counts["train"]
    if base.answers_questions:
        asked = load_questions(
            shards,
            base.task,
            data,
            model=base.model,
            global_batch_size=base.global_batch_size,
            needs_meta=base.is_meta_learned,
        )
        counts, num_places, things = asked.summary["num_questions"], asked.num_places, "questions"
    check_sizes(base, counts)
    if is_new:
        check_all_sizes(plan, counts)
    if any(metric.startswith("val/") for metric in job.objectives) and not counts.get("val"):
        raise UserError(f"no {things} in the val split", got=base.shards, wanted="some: a sweep chooses by them")
    return base, count_steps(base, num_places)


def _run_trials(job: SweepJob, plan: SweepPlan, base: TrainJob, search: StudySearch, num_left: int) -> dict[str, str]:
    """Run the trials that are left; returns why runs failed, by run."""
    concurrent = min(num_left, job.max_concurrent or num_concurrent(base, ray.cluster_resources()))
    logger.info("%d trials at a time", concurrent)
    trial = tune.with_parameters(run_trial, base=base, plan=plan, num_runs=concurrent)
    folder = Place.of(plan.uri)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its banner and tables; the searcher tells of every trial
    results = tune.Tuner(
        tune.with_resources(trial, tune.PlacementGroupFactory([{"memory": _TRIAL_MEMORY_BYTES}])),
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=StudyHalving(search), num_samples=num_left, max_concurrent_trials=concurrent
        ),
        run_config=tune.RunConfig(
            name="ray_tune",
            storage_path=folder.path,
            storage_filesystem=folder.filesystem,
            failure_config=tune.FailureConfig(max_failures=_TRIAL_FAILURES),
            verbose=0,
        ),
    ).fit()
    if search.storage_failure is not None:  # started again, the sweep goes on with the trials that failed by it
        raise StorageError(search.storage_failure)
    failures = failures_of(results, job.objectives)
    for run, reason in failures.items():
        logger.warning("%s failed: %s", run, reason)
    return failures


def num_concurrent(base: TrainJob, resources: dict[str, float]) -> int:
    """Return how many trials a cluster holds at a time: each has its workers and a CPU for decoding."""
    num_workers = base.workers.max
    fits = [resources.get("CPU", 1.0) // (num_workers * base.cpus_per_worker + 1)]
    if base.use_gpu:
        fits.append(resources.get("GPU", 0.0) // num_workers)
    return max(1, int(min(fits)))
