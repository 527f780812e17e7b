"""The prepare job: videos and annotations become shards and an index; foreign shards get an index in place.

    python jobs/prepare.py --videos DIR_OR_URI --annotations FILE --output URI
    python jobs/prepare.py --videos DIR_OR_URI --output URI      # clips without captions, for jobs/caption.py
    python jobs/prepare.py --shards URI

One Ray task makes one shard. Neither annotations nor index rows pass through the driver: tasks leave parts in the
storage, and a last task joins them. A job that was killed starts again with its finished shards; one that had ended
takes in what was missing or damaged then, and nothing else.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.data import DataContext

from mama_ray.data.clip import normal_split
from mama_ray.data.index import INDEX_NAME
from mama_ray.data.index_look import look_at_index
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.prepare.corpus import build_corpus
from mama_ray.orchestration.prepare.foreign import ShardWork, index_shard
from mama_ray.orchestration.prepare.inputs import look_at_videos, remove_left_over
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.join import join_parts
from mama_ray.orchestration.prepare.parts import SUMMARY_NAME
from mama_ray.orchestration.prepare.plan import (
    Plan,
    is_prepared,
    look_at_annotations,
    make_plan,
    pairs_by_an_older_rule,
    video_work,
)
from mama_ray.orchestration.prepare.splits import SplitRequest
from mama_ray.orchestration.prepare.videos import write_chunk_shard
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, absolute_uri, join_uri, storage_errors

logger = logging.getLogger(__name__)

_LIGHT_CPUS = 0.5  # planning and joining wait for the storage most of the time


def run(config: PrepareJob) -> str:
    """Run the job and return its last line. Raises UserError for everything a user can put right."""
    config = _complete(config)
    target = config.shards or config.output
    _look_at_folders(config)
    ensure_writable(target)
    ensure_readable(config.videos, config.annotations)
    if config.annotations:
        look_at_annotations(config)
    folder = Place.of(target)
    with storage_errors(target):
        is_finished = (folder / SUMMARY_NAME).is_file()
    if is_finished:  # many runs at a time may learn from it, and what only looks needs nothing to itself
        connect()
        if result_of(_is_prepared.remote(config)):
            return _told_as_done(config, target)
    with Lease(folder / LEASE_NAME, "output of prepare"):
        connect()
        return _prepare(config, target)


def _prepare(config: PrepareJob, target: str) -> str:
    DataContext.get_current().enable_progress_bars = False
    plan = result_of(_plan.remote(config))
    if plan is None:
        return _told_as_done(config, target)
    if plan.names:
        _run_tasks(config, plan)
    told = result_of(_join.remote(config, plan.names, plan.mends))
    for split in empty_splits(config):
        logger.warning("split %s was asked for and got no clip: there are few videos; ask for a number of clips", split)
    return told


def _told_as_done(config: PrepareJob, target: str) -> str:
    note = ""
    if config.shards and pairs_by_an_older_rule(Place.of(config.shards)):
        note = (
            ", by an earlier version, which gave texts to videos of other names where these agree up to the first "
            "dot; if yours do, delete index.parquet and prepare.json and start again"
        )
    return f"already prepared from the same inputs{note}: index at {join_uri(target, INDEX_NAME)}"


def empty_splits(config: PrepareJob) -> list[str]:
    """Return the splits that were to be drawn and have no clip in the index."""
    counts = look_at_index(Place.of(config.output)) if config.split else None
    asked = map(normal_split, config.split[::2])
    return [] if counts is None else [split for split in asked if not counts.get(split, 1)]


def _complete(config: PrepareJob) -> PrepareJob:
    """Check which inputs are given together; without any, make the embedded corpus."""
    for name in ("videos", "annotations", "shards", "output"):
        if getattr(config, name) == "":  # of a shell's variable that is not set; it must not pass for none
            raise UserError(f"--{name} is empty", wanted="a path or URI", remedy="leave it out where there is none")
    if config.shards and (config.videos or config.annotations):
        raise UserError("prepare takes videos with annotations, or shards", got="both", remedy="leave one of them out")
    if config.annotations and not config.videos:
        raise UserError("prepare lacks --videos", wanted="--videos, with or without --annotations, or --shards alone")
    if config.split:
        if config.shards:
            raise UserError("--split draws for videos", got="--shards", remedy="name the splits in the .json members")
        SplitRequest.of(config.split, config.default_split)
    if config.scenes.detector != "none" and not config.videos:
        raise UserError("--scenes cuts videos", got="none", wanted="--videos", remedy="name the folder of the videos")
    if config.window.fps and config.shards:
        raise UserError("--window.fps is for clips that are cut", got="--shards", wanted="--videos")
    if config.shard_folders and config.shards:
        raise UserError("--shard_folders is for shards that are written", got="--shards", wanted="--videos")
    if config.transcode.is_on and config.shards:
        raise UserError("--transcode is for clips that are sharded from videos", got="--shards", wanted="--videos")
    if config.caption_source != "human" and not config.shards:
        raise UserError(
            f"--caption_source {config.caption_source} is of foreign shards",
            got=f"--videos {config.videos}" if config.videos else "neither --videos nor --shards",
            wanted="--shards",
            remedy="give the table of annotations a column source",
        )
    if config.annotations_format != "table" and not config.annotations:
        raise UserError(f"--annotations_format {config.annotations_format} without --annotations")
    if not config.shards and not config.videos:
        corpus = build_corpus(config.corpus, config.corpus_folder)
        videos, annotations = join_uri(corpus, "videos"), join_uri(corpus, "annotations.jsonl")
        config = config.model_copy(update={"videos": videos, "annotations": annotations})
    places = {name: getattr(config, name) for name in ("videos", "annotations", "shards", "output")}
    # Tasks have another working directory, and a resumed job may have.
    return config.model_copy(update={name: absolute_uri(uri) for name, uri in places.items() if uri})


def _look_at_folders(config: PrepareJob) -> None:
    """Raise UserError where a local folder is not there; tasks look at those of other storages."""
    if config.videos and (videos := Place.of(config.videos)).is_local:
        with storage_errors(config.videos):
            look_at_videos(videos)
    if config.shards and (shards := Place.of(config.shards)).is_local and not shards.exists():
        raise UserError("no such folder of shards", got=config.shards)


@ray.remote(num_cpus=_LIGHT_CPUS, max_retries=2, name="prepare: plan")
def _plan(config: PrepareJob) -> Plan | None:
    with storage_errors(config.shards or config.output):
        return make_plan(config)


@ray.remote(num_cpus=_LIGHT_CPUS, max_retries=2, name="prepare: look")
def _is_prepared(config: PrepareJob) -> bool:
    with storage_errors(config.shards or config.output):
        return is_prepared(config)


def _run_tasks(config: PrepareJob, plan: Plan) -> None:
    """One task per part; the driver gets two counts of each."""
    target, num_tasks = config.shards or config.output, len(plan.names)
    if config.shards:
        shard_work = ShardWork(
            config.shards,
            config.default_split,
            config.caption_source,
            config.num_trial_frames,
            config.decode,
            unknown_splits=config.unknown_columns,
        )
        pairs = ray.put(list(zip(plan.names, plan.shards, strict=True)))
        make_part = _part_fn(lambda number: index_shard(shard_work, *ray.get(pairs)[number]), target)
    else:
        work, chunks = video_work(config), plan.chunks
        make_part = _part_fn(lambda number: write_chunk_shard(work, chunks[number]), target)
    tasks = ray.data.range(num_tasks, override_num_blocks=num_tasks)
    parts = tasks.map(make_part, num_cpus=config.cpus_per_task)
    parts.set_name("prepare")  # in Ray's dashboard
    num_clips = num_quarantined = 0
    error = ""
    for done, part in enumerate(parts.iter_rows(), 1):
        if error := part["error"]:
            break  # which ends the pipeline here: an error that holds it would have it outlive Ray, which complains
        num_clips, num_quarantined = num_clips + part["num_clips"], num_quarantined + part["num_quarantined"]
        logger.info("shard %d of %d: %d clips, %d quarantined", done, num_tasks, num_clips, num_quarantined)
    if error:
        with suppress(OSError):  # tasks were ended in the midst of their shards, and the disk may be full
            remove_left_over(Place.of(target), is_spread=config.shard_folders > 0)
        raise UserError(error)


def _part_fn(make: Callable[[int], tuple[int, int]], target: str) -> Callable[[dict], dict]:
    """Wrap a task so that a failing storage ends the job with its reason, not with a traceback of every retry."""

    def make_part(item: dict[str, Any]) -> dict[str, Any]:
        try:
            with storage_errors(target):
                num_clips, num_quarantined = make(int(item["id"]))
        except UserError as error:
            return {"num_clips": 0, "num_quarantined": 0, "error": str(error)}
        return {"num_clips": num_clips, "num_quarantined": num_quarantined, "error": ""}

    return make_part


@ray.remote(num_cpus=_LIGHT_CPUS, max_retries=2, name="prepare: join")
def _join(config: PrepareJob, names: list[str], mends: bool) -> str:
    return join_parts(
        config.shards or config.output,
        names,
        mends=mends,
        damaged_shards_are_refused=config.damaged_shards == "refuse",
        max_quarantined=config.max_quarantined,
    )
