"""The training job: Ray Data streams shards into Ray Train workers that learn the dual encoder.

python jobs/train.py [configs/train/NAME.yaml] --storage URI --run NAME     # started again with the same two: resumes
"""

import json
import logging
import os
from collections.abc import Sequence

from ray.train import UserCallback

from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.placement import Share, require_room
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.report import write_page
from mama_ray.orchestration.runs.run_folder import write_environment, write_run_config
from mama_ray.orchestration.runs.settings import count_steps
from mama_ray.orchestration.runs.worker_group import resources_of_worker, run_workers
from mama_ray.orchestration.training.data import RunData, load_run_data
from mama_ray.orchestration.training.inputs import check_sizes, look_at_inputs
from mama_ray.orchestration.training.job import TrainJob, with_absolute_paths
from mama_ray.orchestration.training.worker import train_fn_per_worker
from mama_ray.reporting.run_summary import summarise_run
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.places import Place, join_uri
from mama_ray.training.manifest import CheckpointRef, best_checkpoint, latest_valid_checkpoint, list_checkpoints

logger = logging.getLogger(__name__)


def train(job: TrainJob) -> str:
    """Run or resume a training job; returns the line that names its result."""
    job = with_absolute_paths(job)
    run_uri = join_uri(job.storage, job.run)
    run_folder = Place.of(run_uri)
    job, num_steps, was_done = run_to_end(job)
    if was_done:
        return f"done already, {num_steps} steps: {run_uri}"
    best = best_checkpoint(list_checkpoints(run_folder))
    assert best is not None  # the last step leaves one
    page = summarise_run(job.run, run_folder)
    report = write_page(join_uri(run_uri, "report"), f"Run {job.run}", [page], None)
    logger.info("curves of the run: %s", report)
    score = "" if best.selection is None else f", best val t2v R@1 {best.selection:.1f} at step {best.step}"
    return f"trained {num_steps} steps{score}: {run_uri}"


def run_to_end(
    job: TrainJob, *, callbacks: Sequence[UserCallback] = (), num_runs: int = 1
) -> tuple[TrainJob, int, bool]:
    """Train from where the run stands to its last step; returns the job with its shards, the number of steps, and
    whether they were done before.

    The job's paths are absolute. `callbacks` hear of every validation; `num_runs` runs share the cluster with this one.
    """
    run_uri = join_uri(job.storage, job.run)
    run_folder = Place.of(run_uri)
    ensure_writable(run_uri)
    look_at_inputs(job)
    write_run_config(job, run_folder)
    newest = latest_valid_checkpoint(run_folder)
    connect()
    shards = embedded_shards(job.corpus, job.storage) if job.shards is None else job.shards
    job = job.model_copy(update={"shards": shards})
    data = load_run_data(shards, job.data, seed=job.seed, tokenizer=_tokenizer_of(job, newest))
    check_sizes(job, data.summary["num_clips"])
    _refuse_other_captions(job, data, run_folder)
    write_environment(data.summary, run_folder)
    num_steps = count_steps(job, data.summary["num_clips"]["train"])
    logger.info("run %s: %s clips, %d steps", run_uri, data.summary["num_clips"], num_steps)
    if newest is not None and newest.step >= num_steps:
        return job, num_steps, True
    loop_config = {"data": data, "num_steps": num_steps, "num_runs": num_runs}
    _require_room(job)
    group = {"workers": job.workers, "placement": job.placement}
    run_workers(train_fn_per_worker, loop_config, job, run_folder, **group, callbacks=callbacks)
    return job, num_steps, False


def _tokenizer_of(job: TrainJob, newest: CheckpointRef | None) -> str | None:
    """Where the run's tokenizer is, if it has one: with the pretrained weights, or in its newest whole checkpoint."""
    if job.data.tokenizer is not None:
        return None
    if job.model.pretrained is not None:
        return job.model.pretrained
    return None if newest is None else newest.place.uri


def _refuse_other_captions(job: TrainJob, data: RunData, run_folder: Place) -> None:
    """Raise UserError if a run that has a checkpoint finds other captions in its tables than it began with."""
    place = run_folder / "environment.json"
    if not (place.is_file() and list_checkpoints(run_folder)):
        return
    earlier = json.loads(place.read_bytes())["data"].get("caption_tables", {})
    for uri, use in data.summary["caption_tables"].items():
        if uri in earlier and earlier[uri]["sha256"] != use["sha256"]:
            raise UserError(
                f"run {job.run} began with other captions in {uri}",
                got=f"{use['used']} captions with sha256 {use['sha256']}",
                wanted=f"{earlier[uri]['used']} with {earlier[uri]['sha256']}",
                remedy="put that table back to resume, or give --run another name",
            )


def _require_room(job: TrainJob) -> None:
    """Tell what can never be placed: the smallest group of workers, on its nodes, and one decode task on its own."""
    worker = resources_of_worker(job, job.placement)
    workers = Share({name: job.workers.min * amount for name, amount in worker.items()}, job.placement.worker_labels)
    # A decode task takes what CPU it finds where none is left to reserve, but there must be a node for it.
    decoding = Share({"memory": 1.0}, job.placement.decode_labels)
    remedy = "lower num_workers or what a worker reserves, or leave out placement"
    is_cluster = "RAY_ADDRESS" in os.environ
    require_room("the group of train workers", [workers, decoding], is_cluster=is_cluster, remedy=remedy)
