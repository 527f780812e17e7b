"""A group of Ray Train workers: how many, what each reserves, where, and how often it may fail."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import ray
import ray.train
from ray.train.torch import TorchTrainer

from mama_ray.orchestration.cluster.entry import find_machine_failure, find_user_error
from mama_ray.orchestration.cluster.labels import PlacementConfig
from mama_ray.orchestration.runs.process_group import ProcessGroupConfig
from mama_ray.orchestration.runs.settings import RunSettings, WorkerRange
from mama_ray.storage.failures import as_storage_error, is_of_the_storage, told_of_storage
from mama_ray.storage.places import Place

# An elastic group is sized by what Ray last saw of the nodes, up to 20 s ago: after the loss of one it may ask for more
# than there is, and then must give up soon to ask again.
_ELASTIC_START_TIMEOUT_S = "10"
_TELLS_TRACEBACKS = "ray.train.v2._internal.util"  # logger by which Ray Train tells what ended a worker


class EndAtUserError(ray.train.UserCallback):
    """Ends a run at once by what only its user can put right: another try would fail alike, minutes later."""

    def after_exception(self, run_context: object, worker_exceptions: Mapping[int, BaseException]) -> None:
        """Raise the first UserError of the workers as one of the controller, which Ray Train never tries again."""
        for error in worker_exceptions.values():
            known = find_user_error(error)
            if known is not None:
                raise ray.train.ControllerError(known)


def resources_of_worker(job: RunSettings, placement: PlacementConfig) -> dict[str, float]:
    """Return what each train worker reserves."""
    return {"CPU": job.cpus_per_worker, **({"GPU": 1} if job.use_gpu else {}), **placement.worker_resources}


def run_workers(
    train_fn_per_worker: Callable[[dict], None],
    loop_config: dict,
    job: RunSettings,
    run_folder: Place,
    *,
    workers: WorkerRange | None = None,
    placement: PlacementConfig | None = None,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Run a function on a group of Ray Train workers to its end, through the crashes that the job survives.

    A UserError in a worker is no crash: it ends the job at once and comes out as itself.
    """
    workers, placement = workers or WorkerRange.of(job.num_workers), placement or PlacementConfig()
    if workers.is_elastic:
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = _ELASTIC_START_TIMEOUT_S
    trainer = TorchTrainer(
        partial(_told_without_traceback, train_fn_per_worker, run_folder.uri),
        train_loop_config=loop_config | {"job": job, "show_bar": sys.stderr.isatty()},
        torch_config=ProcessGroupConfig(backend="nccl" if job.use_gpu else "gloo", timeout_s=300),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(workers.min, workers.max) if workers.is_elastic else workers.max,
            elastic_resize_monitor_interval_s=workers.resize_every_s,
            use_gpu=job.use_gpu,
            resources_per_worker=resources_of_worker(job, placement),
            label_selector=dict(placement.worker_labels) or None,
        ),
        run_config=ray.train.RunConfig(
            name="ray_train",
            storage_path=run_folder.path,
            storage_filesystem=run_folder.filesystem,
            failure_config=ray.train.FailureConfig(max_failures=job.max_failures),
            callbacks=[EndAtUserError(), *callbacks],
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        known = find_user_error(error) or find_machine_failure(error, run_folder.uri)
        if known is None:
            raise
        raise known from None


def _told_without_traceback(train_fn_per_worker: Callable[[dict], None], run_uri: str, loop_config: dict) -> None:
    """Run a worker's function; of a UserError that comes out, the driver tells the one line, so Ray tells nothing.

    A disk that is full, read-only or gone is one: another try, which Ray Train would make, ends alike.
    """
    try:
        train_fn_per_worker(loop_config)
    except Exception as error:
        known = find_user_error(error)
        if known is None:
            failure = as_storage_error(error)
            if failure is None or not is_of_the_storage(failure):
                raise
            known = told_of_storage(failure, run_uri)
        logging.getLogger(_TELLS_TRACEBACKS).setLevel(logging.CRITICAL)
        raise known from None
