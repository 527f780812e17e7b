"""The narrator's job: Ray Data streams pictures of captioned clips into Ray Train workers that teach a LLaVA or a gated
GPT-2 to caption them.

python jobs/narrator.py [configs/narrator/NAME.yaml] --storage URI --run NAME     # with the same two again: resumes
"""

import logging
import tempfile
from pathlib import Path
from typing import Literal

import ray
from ray.exceptions import RayError

from mama_ray.captioning.narrator.kinds import KINDS
from mama_ray.data.index_look import look_at_index
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.narrator.data import NarratorData, load_narrator_data
from mama_ray.orchestration.narrator.job import NarratorJob, with_absolute_paths
from mama_ray.orchestration.narrator.report import write_run_report
from mama_ray.orchestration.narrator.sources import look_at_sources
from mama_ray.orchestration.narrator.worker import train_narrator_per_worker
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.checkpoint_store import publish_folder
from mama_ray.orchestration.runs.run_folder import compare_with_begun, write_environment, write_run_config
from mama_ray.orchestration.runs.settings import count_steps, require_one_batch
from mama_ray.orchestration.runs.worker_group import run_workers
from mama_ray.reporting.trackers import require_trackers
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, join_uri, storage_errors
from mama_ray.training.manifest import best_checkpoint, latest_valid_checkpoint, list_checkpoints

logger = logging.getLogger(__name__)

MODEL_FOLDER = "model"
_MODEL_TASK_CPUS = 0.5


def run(job: NarratorJob) -> str:
    """Run or resume a narrator's training; returns the line that names the model folder."""
    job = with_absolute_paths(job)
    run_uri = join_uri(job.storage, job.run)
    run_folder = Place.of(run_uri)
    ensure_writable(run_uri)
    with Lease(run_folder / LEASE_NAME, "run"):
        return _run(job, run_uri, run_folder)


def _run(job: NarratorJob, run_uri: str, run_folder: Place) -> str:
    ensure_readable(job.shards)
    begun = compare_with_begun(job, run_folder)
    if begun is None:
        look_at_sources(job)
    require_trackers(job.trackers)
    counts = look_at_index(Place.of(job.shards)) if job.shards is not None else None
    if counts is not None:
        require_one_batch(job, counts["train"])
    if begun is None:
        write_run_config(job, run_folder)
    connect()
    begins_with = job
    shards = embedded_shards(job.corpus, job.storage) if job.shards is None else job.shards
    job = job.model_copy(update={"shards": shards})
    newest = latest_valid_checkpoint(run_folder)
    data = load_narrator_data(job, checkpoint=newest.place.uri if newest else None)
    num_clips = data.summary["num_clips"]
    require_one_batch(job, num_clips["train"])
    if begun is not None:
        begun.refuse_others(job.run, data.summary["contents"], {"shards": shards})
        write_run_config(begins_with, run_folder)  # now that what it names is known to be the same
    write_environment(data.summary, run_folder)
    num_steps = count_steps(job, num_clips["train"])
    logger.info("run %s: %s clips, %d steps", run_uri, num_clips, num_steps)
    if newest is None or newest.step < num_steps:
        loop_config = {"data": data, "num_steps": num_steps}
        run_workers(train_narrator_per_worker, loop_config, job, run_folder)
    best = best_checkpoint(list_checkpoints(run_folder))
    assert best is not None  # the last step leaves one
    model_uri = join_uri(run_uri, MODEL_FOLDER)
    result_of(_write_model.remote(data.facts.kind, best.place.uri, model_uri, job.model_dtype))
    _tell_report(job, data, best.place.uri)
    score = "" if best.selection is None else f", val loss {-best.selection:.3f} at step {best.step}"
    return f"trained {num_steps} steps{score}: {model_uri}"


def _tell_report(job: NarratorJob, data: NarratorData, checkpoint: str) -> None:
    """Write the run's page; the model is there without it, so what fails here is told and no more."""
    try:
        logger.info("captions of val and curves: %s", write_run_report(job, data, checkpoint))
    except RayError as error:
        logger.warning("the run's page could not be written: %s", str(error).strip().splitlines()[-1])


@ray.remote(num_cpus=_MODEL_TASK_CPUS)
def _write_model(kind: str, checkpoint: str, target: str, dtype: Literal["float32", "bfloat16"]) -> None:
    """Make the checkpoint a model folder of its own, without what only training needs; config.json comes last."""
    place = Place.of(target)
    with storage_errors(target), Place.of(checkpoint).local() as source, tempfile.TemporaryDirectory() as scratch:
        KINDS[kind].convert(source, Path(scratch), dtype)
        publish_folder(place, list(Path(scratch).iterdir()), last="config.json")
