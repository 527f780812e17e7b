"""The index of a corpus: every clip and caption through a dual encoder, into the table that search reads.

    python jobs/index.py --shards URI --model RUN_OR_DIR --output URI

Started again with the same it goes on, with more shards it adds theirs, with other captions it encodes these anew.
"""

import logging
import os
import time
from itertools import chain

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from mama_ray.data.index_look import look_at_index
from mama_ray.errors import UserError
from mama_ray.models.hub import require_hub_id, without_prefix
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.pipelines import runs_of
from mama_ray.orchestration.cluster.placement import Share, require_room
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.orchestration.indexing.actor import IndexActor
from mama_ray.orchestration.indexing.check import FolderState, enter, leave, look_at_parts, require_same
from mama_ray.orchestration.indexing.job import IndexActorConfig, IndexJob, with_absolute_paths
from mama_ray.orchestration.indexing.plan import CLIPS_FOLDER, IndexPlan, make_plan
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.start_folder import start_folder

logger = logging.getLogger(__name__)

_MAX_PASSES = 3  # a second one is for files that a power failure damaged
_LINE_EVERY_S = 30.0


def make_index(job: IndexJob) -> str:
    """Write, complete or renew a table of embeddings; returns the line that names it."""
    job = with_absolute_paths(job)
    output = Place.of(job.output)
    ensure_readable(job.shards, without_prefix(job.model), *job.captions)
    _look_at_inputs(job)
    ensure_writable(job.output)
    with Lease(output / LEASE_NAME, "table of embeddings"):
        connect()
        _fit_actors(job.actors, is_cluster="RAY_ADDRESS" in os.environ)
        with user_errors(), storage_errors(job.output), start_folder(output, CLIPS_FOLDER) as work:
            return _make(job, output, work)


def _look_at_inputs(job: IndexJob) -> None:
    """Raise UserError for shards without an index, a split without clips, and what can be no model."""
    counts = look_at_index(Place.of(job.shards))
    if counts is not None and not (counts[job.split] if job.split else sum(counts.values())):
        raise UserError(
            "no clips to index",
            got=f"{job.shards}, split {job.split or 'any'}",
            wanted=", ".join(f"{name} ({count} clips)" for name, count in counts.items() if count) or "some clips",
        )
    source = without_prefix(job.model)
    if "://" not in source and not os.path.exists(source):
        require_hub_id(source)


def _fit_actors(actors: IndexActorConfig, *, is_cluster: bool) -> None:
    wanted = {"CPU": actors.cpus, "GPU": actors.gpus, **actors.resources}
    require_room("an actor", [Share(wanted, {})], is_cluster=is_cluster, remedy="lower what actors reserve")


def _make(job: IndexJob, output: Place, work: Place) -> str:
    started = time.monotonic()
    plan = make_plan(job, work.uri)
    require_same(job, plan, output)
    state = look_at_parts(plan, output)
    enter(job, plan, output)
    for _ in range(_MAX_PASSES):
        pending = [number for number, part in enumerate(plan.parts) if part.name not in state.done]
        if not pending:
            break
        logger.info("%d of %d files to do, %d of them captions alone", len(pending), len(plan.parts),
                    len(state.other_captions))  # fmt: skip
        _run(plan, pending, state, job.actors)
        state = look_at_parts(plan, output)
    else:
        raise UserError("files of the index are damaged again and again", got=job.output, remedy="check the storage")
    if state.num_errors == plan.num_clips:
        raise UserError("no clip has a feature", got=f"{state.num_errors} errors, such as: {state.first_error}")
    if not leave(plan, output, state):
        return f"done already, {_told(plan, state)}: {job.output}"
    return f"indexed {_told(plan, state)} in {time.monotonic() - started:.0f} s: {job.output}"


def _told(plan: IndexPlan, state: FolderState) -> str:
    num_captions = sum(counts.num_captions for counts in state.done.values())
    return f"{plan.num_clips} clips ({num_captions} captions, {state.num_errors} errors)"


def _run(plan: IndexPlan, pending: list[int], state: FolderState, actors: IndexActorConfig) -> None:
    """Make parts in an autoscaled pool of actors; Ray Data gives a part again whose actor died."""
    DataContext.get_current().enable_progress_bars = False
    began = told = time.monotonic()
    num_clips = num_errors = 0
    made = chain.from_iterable(
        _pipeline(plan, pending[run.start : run.stop], state, actors).iter_rows() for run in runs_of(len(pending))
    )
    for num_done, row in enumerate(made, 1):
        num_clips, num_errors, now = num_clips + row["clips"], num_errors + row["errors"], time.monotonic()
        if now - told > _LINE_EVERY_S or num_done == len(pending):
            told, rate = now, num_clips / max(now - began, 1e-9)
            logger.info("index: %d of %d files, %.1f clips/s, %d errors", num_done, len(pending), rate, num_errors)


def _pipeline(plan: IndexPlan, pending: list[int], state: FolderState, actors: IndexActorConfig) -> Dataset:
    numbers = ray.data.from_items(pending, override_num_blocks=len(pending))
    most = min(actors.max_number, len(pending))
    made = numbers.map_batches(
        IndexActor,
        fn_constructor_args=(plan, state.other_captions),
        fn_constructor_kwargs={"num_processes": max(1, int(actors.cpus)), "use_gpu": actors.gpus > 0},
        batch_size=1,
        compute=ActorPoolStrategy(min_size=min(actors.min_number, most), max_size=most),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
        **({"resources": actors.resources} if actors.resources else {}),
    )
    made.set_name("index")  # in Ray's dashboard
    return made
