"""One trial of a sweep: a Ray Tune function that runs a Ray Train job named after it.

The run lies in the sweep's own folder and is resumed like any other, so a trial that was cut off goes on from its own
checkpoint, and one that is asked for again when it is done only tells its result.
"""

from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from mama_ray.config import with_overrides
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.cluster.entry import find_user_error
from mama_ray.orchestration.sweep.plan import SweepPlan
from mama_ray.orchestration.sweep.values import FAILURE, IS_OF_STORAGE, NUM_STEPS, STEP, STEP_TIME
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import run_to_end
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.failures import StorageError
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, join_uri

# What an earlier start of the sweep left may still be ending: Ray needs moments to see that a driver was killed.
_LAST_TRY_ENDS_S = 60.0


class DeliveredReports(TuneReportCallback):
    """Ray Train's reports, each of them taken by Ray Tune before the run goes on.

    Ray (2.60) hands them over by a queue of one place, which a trial's process looks into between two looks for the end
    of the trial's function. What comes just before that end may be looked for too late: then the trial has no last
    value, or hangs. Empty reports are passed over, so two of them tell when the one before them was handled: the first
    finds room when it is taken, the second when Ray Tune has asked for more.
    """

    def after_report(self, *args: Any, **kwargs: Any) -> None:
        """Put the metrics of the first worker into the queue, and wait until they have been handled."""
        super().after_report(*args, **kwargs)
        for _ in range(2):
            self._training_actor_item_queue.put({})


def run_trial(suggestion: dict[str, Any], *, base: TrainJob, plan: SweepPlan, num_runs: int) -> None:
    """Train `base`, the plan's on its shards, with the values of a suggestion; Ray Tune hears of every validation.

    suggestion: {"run": name, "point": values by dotted key}; of an ablation {"run", "point": {variant, seed}}.
    `num_runs` trials share the cluster. A UserError is reported as the trial's end, by the key FAILURE: Ray Tune tries
    again what raises, and this would fail alike.
    """
    start_worker_logging()
    try:
        _train(suggestion, base, plan, num_runs)
    except Exception as error:
        known = find_user_error(error)
        if known is None:
            raise
        tune.report({FAILURE: str(known), IS_OF_STORAGE: isinstance(known, StorageError)})


def _train(suggestion: dict[str, Any], base: TrainJob, plan: SweepPlan, num_runs: int) -> None:
    job = with_overrides(base, plan.overrides_of(suggestion["point"]) | {"run": suggestion["run"]})
    run_uri = join_uri(job.storage, job.run)
    ensure_writable(run_uri)
    with Lease(Place.of(run_uri) / LEASE_NAME, "trial", waits_s=_LAST_TRY_ENDS_S):
        job, num_steps, was_done = run_to_end(job, callbacks=[DeliveredReports()], num_runs=num_runs)
        if was_done:
            _report_last_validation(job, num_steps)


def _report_last_validation(job: TrainJob, num_steps: int) -> None:
    run_folder = Place.of(join_uri(job.storage, job.run))
    records = read_metrics(run_folder)
    validated = [record for record in records if any(name.startswith("val/") for name in record)]
    timed = [record[STEP_TIME] for record in records if record.get(STEP_TIME) is not None]
    for record in validated[-1:]:
        values = {name: value for name, value in record.items() if name.startswith("val/")}
        tune.report({STEP: record["step"], NUM_STEPS: num_steps, STEP_TIME: timed[-1] if timed else None, **values})
