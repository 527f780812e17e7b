"""The training job: Ray Data streams shards into Ray Train workers that learn the dual encoder.

python jobs/train.py [configs/train/NAME.yaml] --storage URI --run NAME     # started again with the same two: resumes
"""

import logging
import os
from collections.abc import Sequence

from ray.train import UserCallback

from mama_ray.data.questions.answers import ANSWERS_NAME
from mama_ray.evaluation.question_protocol import AnsweredExample
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.placement import Share, require_room
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.report import write_page
from mama_ray.orchestration.runs.run_folder import (
    BegunRun,
    compare_with_begun,
    write_environment,
    write_run_config,
)
from mama_ray.orchestration.runs.settings import count_steps
from mama_ray.orchestration.runs.worker_group import resources_of_worker, run_workers
from mama_ray.orchestration.training.data import RunData, load_run_data
from mama_ray.orchestration.training.inputs import (
    check_sizes,
    look_at_inputs,
    refuse_unread_scale,
    require_adams_step,
    require_exact_differences,
)
from mama_ray.orchestration.training.job import TrainJob, with_absolute_paths
from mama_ray.orchestration.training.questions import AskedData, load_questions, tell_questions, with_questions
from mama_ray.orchestration.training.tokens import require_models_tokenizer, tell_captions
from mama_ray.orchestration.training.worker import train_fn_per_worker
from mama_ray.reporting.answer_summary import summarise_validation
from mama_ray.reporting.content import Answering
from mama_ray.reporting.run_summary import summarise_run
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, join_uri
from mama_ray.storage.small_files import MAX_JSON_BYTES
from mama_ray.storage.start_folder import start_folder
from mama_ray.training.manifest import CheckpointRef, best_checkpoint, latest_valid_checkpoint, list_checkpoints
from mama_ray.weighting.inputs import check_num_averaged
from mama_ray.weighting.settings import require_no_trivial_optimum

logger = logging.getLogger(__name__)

_CLIPS_FOLDER = ".clips"  # of a run: the training clips of a large corpus, while it runs


def train(job: TrainJob) -> str:
    """Run or resume a training job; returns the line that names its result."""
    job = with_absolute_paths(job)
    run_uri = join_uri(job.storage, job.run)
    run_folder = Place.of(run_uri)
    ensure_writable(run_uri)
    with Lease(run_folder / LEASE_NAME, "run"):
        return _train(job, run_uri, run_folder)


def _train(job: TrainJob, run_uri: str, run_folder: Place) -> str:
    job, num_steps, was_done = run_to_end(job)
    if was_done:
        return f"done already, {num_steps} steps: {run_uri}"
    best = best_checkpoint(list_checkpoints(run_folder))
    assert best is not None  # the last step leaves one
    page = summarise_run(job.run, run_folder, answering=summarise_answers(job, run_folder, best.place))
    report = write_page(join_uri(run_uri, "report"), f"Run {job.run}", [page], None)
    logger.info("curves of the run: %s", report)
    name = "accuracy" if job.answers_questions or job.classifies else "t2v R@1"
    score = "" if best.selection is None else f", best val {name} {best.selection:.1f} at step {best.step}"
    return f"trained {num_steps} steps{score}: {run_uri}"


def summarise_answers(job: TrainJob, run_folder: Place, checkpoint: Place) -> Answering | None:
    """Return what the report shows of a run that answers: accuracy on val, with questions of a checkpoint."""
    assert job.shards is not None
    if not job.answers_questions:
        return None
    record = (checkpoint / "train_state.json").read_json() or {}
    examples = [AnsweredExample.model_validate(one) for one in record.get("answered", ())]
    return summarise_validation(read_metrics(run_folder), examples, Place.of(job.shards))


def run_to_end(
    job: TrainJob, *, callbacks: Sequence[UserCallback] = (), num_runs: int = 1
) -> tuple[TrainJob, int, bool]:
    """Train from where the run stands to its last step; returns the job with its shards, the number of steps, and
    whether they were done before.

    The job's paths are absolute, and the caller holds the run's lease. `callbacks` hear of every validation; `num_runs`
    runs share the cluster with this one.
    """
    run_folder = Place.of(join_uri(job.storage, job.run))
    with start_folder(run_folder, _CLIPS_FOLDER) as work:
        return _run_to_end(job, run_folder, work, callbacks=callbacks, num_runs=num_runs)


def _run_to_end(
    job: TrainJob, run_folder: Place, work: Place, *, callbacks: Sequence[UserCallback], num_runs: int
) -> tuple[TrainJob, int, bool]:
    begun = compare_with_begun(job, run_folder)
    look_at_inputs(job, has_begun=begun is not None)
    if begun is None or "use_gpu" in begun.changed:
        require_exact_differences(job)
    if begun is None:
        require_adams_step(job)
        refuse_unread_scale(job)
        require_no_trivial_optimum(job.weighting)
        write_run_config(job, run_folder)
    newest = latest_valid_checkpoint(run_folder)
    connect()
    begins_with = job
    shards = embedded_shards(job.corpus, job.storage) if job.shards is None else job.shards
    job = job.model_copy(update={"shards": shards})
    data = load_begun_data(job, begun, newest, work=work.uri)
    asked = load_begun_questions(job, data, begun, newest) if job.answers_questions else None
    samples = data.summary["num_clips"] if asked is None else asked.summary["num_questions"]
    check_sizes(job, samples)
    if newest is None:
        require_models_tokenizer(job, data.tokenizer_files)
    if begun is not None:
        write_run_config(begins_with, run_folder)  # now that what it names is known to be the same
    summary = data.summary if asked is None else with_questions(data.summary, asked)
    write_environment(summary, run_folder)
    if "average_loss" in job.weighting.inputs:
        check_num_averaged(samples["train"])
    num_steps = count_steps(job, samples["train"] if asked is None else asked.num_places)
    logger.info("run %s: %s clips, %d steps", run_folder, data.summary["num_clips"], num_steps)
    tell_captions(job, data.summary)
    if job.data.exclude is not None:
        logger.info("%s leaves out %s", job.data.exclude, data.summary["excluded"])
    if newest is not None and newest.step >= num_steps:
        return job, num_steps, True
    if asked is not None:
        tell_questions(asked.summary)
    loop_config = {"data": data, "asked": asked, "num_steps": num_steps, "num_runs": num_runs}
    _require_room(job)
    group = {"workers": job.workers, "placement": job.placement}
    run_workers(train_fn_per_worker, loop_config, job, run_folder, **group, callbacks=callbacks)
    return job, num_steps, False


def load_begun_data(
    job: TrainJob, begun: BegunRun | None, newest: CheckpointRef | None, *, work: str | None = None
) -> RunData:
    """Load what a run reads, `job.shards` being given; UserError where a begun one finds other than it began with.

    Tokenizer and weights whose places are given as before are not looked at again, and need not be there: the
    checkpoint has them. work: see `load_run_data`.
    """
    assert job.shards is not None
    has_own = begun is not None and newest is not None
    moved = begun.moved if begun is not None else frozenset()
    looks_at_weights = not has_own or "model.pretrained" in moved
    looks_at_tokenizer = not has_own or "data.tokenizer" in moved or (looks_at_weights and not job.data.tokenizer)
    source = (job.data.tokenizer or job.model.pretrained) if looks_at_tokenizer else None
    data = load_run_data(
        job.shards,
        job.data,
        seed=job.seed,
        tokenizer=source or (newest.place.uri if newest is not None else None),
        weights=job.model.pretrained if looks_at_weights else None,
        is_begun=has_own,
        task=job.task,
        reads_classes=job.reads_classes,
        needs_relevance=job.needs_relevance,
        weighting=job.weighting,
        work=work,
        mixes_captions=job.objective.mixes_captions,
    )
    if begun is not None:
        contents = data.summary["contents"]
        known = {"model.pretrained": looks_at_weights, "data.tokenizer": looks_at_tokenizer}
        for name in [name for name, is_looked_at in known.items() if not is_looked_at]:
            del contents[name]
            contents |= {name: begun.contents[name]} if name in begun.contents else {}
        begun.refuse_others(job.run, contents, _places_of(job))
    return data


def load_begun_questions(
    job: TrainJob, data: RunData, begun: BegunRun | None, newest: CheckpointRef | None
) -> AskedData:
    """Load the questions of a run; UserError where a begun one finds others. Its checkpoint has its list of answers."""
    assert job.shards is not None
    known = None
    if begun is not None and newest is not None and (newest.place / ANSWERS_NAME).is_file():
        known = (newest.place / ANSWERS_NAME).read_text(MAX_JSON_BYTES)
    asked = load_questions(
        job.shards,
        job.task,
        data,
        model=job.model,
        global_batch_size=job.global_batch_size,
        needs_meta=job.is_meta_learned,
        known=known,
    )
    if begun is not None:
        places = {"task.questions": job.task.questions or job.shards}
        begun.refuse_others(job.run, asked.contents, places)
    return asked


def _places_of(job: TrainJob) -> dict[str, object]:
    return {
        "shards": job.shards,
        "data.tokenizer": job.data.tokenizer or job.model.pretrained or "the tokenizer of the checkpoint",
        "data.caption_tables": ", ".join(job.data.caption_tables),
        "data.classes": ", ".join(job.data.classes) or job.shards,
        "data.exclude": job.data.exclude,
        "weighting.features": job.weighting.features,
        "model.pretrained": job.model.pretrained,
    }


def _require_room(job: TrainJob) -> None:
    """Tell what can never be placed: the smallest group of workers, on its nodes, and one decode task on its own."""
    worker = resources_of_worker(job, job.placement)
    workers = Share({name: job.workers.min * amount for name, amount in worker.items()}, job.placement.worker_labels)
    # A decode task takes what CPU it finds where none is left to reserve, but there must be a node for it.
    decoding = Share({"memory": 1.0}, job.placement.decode_labels)
    remedy = "lower num_workers or what a worker reserves, or leave out placement"
    is_cluster = "RAY_ADDRESS" in os.environ
    require_room("the group of train workers", [workers, decoding], is_cluster=is_cluster, remedy=remedy)
