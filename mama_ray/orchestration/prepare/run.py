"""The prepare job: videos and annotations become shards and an index; foreign shards get an index in place.

    python jobs/prepare.py --videos DIR_OR_URI --annotations FILE --output URI
    python jobs/prepare.py --shards URI

One Ray task makes one shard. Neither annotations nor index rows pass through the driver: tasks leave parts in the
storage, and a last task joins them. A job that was killed starts again with its finished shards.
"""

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.data import DataContext

from mama_ray.config import decisive_values
from mama_ray.data.index import INDEX_NAME
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.prepare.corpus import build_corpus
from mama_ray.orchestration.prepare.foreign import ShardWork, index_shard, list_shards
from mama_ray.orchestration.prepare.inputs import inputs_of, is_finished, start_work
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.join import join_parts
from mama_ray.orchestration.prepare.videos import VideoWork, write_chunk_shard, write_chunks
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import Place, absolute_uri, join_uri, storage_errors

logger = logging.getLogger(__name__)

_LIGHT_CPUS = 0.5  # planning and joining wait for the storage most of the time


def run(config: PrepareJob) -> str:
    """Run the job and return its last line. Raises UserError for everything a user can put right."""
    config = _complete(config)
    target = config.shards or config.output
    ensure_writable(target)
    ensure_readable(config.videos, config.annotations)
    connect()
    DataContext.get_current().enable_progress_bars = False
    plan = result_of(_plan.remote(config))
    if plan is None:
        return f"already prepared from the same inputs: index at {join_uri(target, INDEX_NAME)}"
    num_tasks, shard_names = plan
    if num_tasks:
        _run_tasks(config, num_tasks, ray.put(shard_names))
    return result_of(_join.remote(config, num_tasks))


def _complete(config: PrepareJob) -> PrepareJob:
    """Check which inputs are given together; without any, make the embedded corpus."""
    if config.shards and (config.videos or config.annotations):
        raise UserError("prepare takes videos with annotations, or shards", got="both", remedy="leave one of them out")
    if bool(config.videos) != bool(config.annotations):
        missing = "annotations" if config.videos else "videos"
        raise UserError(f"prepare lacks --{missing}", wanted="--videos and --annotations together, or --shards alone")
    if not config.shards and not config.videos:
        corpus = build_corpus(config.corpus, config.corpus_folder)
        videos, annotations = join_uri(corpus, "videos"), join_uri(corpus, "annotations.jsonl")
        config = config.model_copy(update={"videos": videos, "annotations": annotations})
    places = {name: getattr(config, name) for name in ("videos", "annotations", "shards", "output")}
    # Tasks have another working directory, and a resumed job may have.
    return config.model_copy(update={name: absolute_uri(uri) for name, uri in places.items() if uri})


@ray.remote(num_cpus=_LIGHT_CPUS, max_retries=2, name="prepare: plan")
def _plan(config: PrepareJob) -> tuple[int, list[str]] | None:
    """Return the number of tasks and, one per task, the names of the foreign shards; None when all of it is done."""
    target = config.shards or config.output
    folder = Place.of(target)
    with storage_errors(target):
        shards = list_shards(config.shards) if config.shards else []
        decides = decisive_values(config)
        inputs = inputs_of(decides, shards, config.videos, config.annotations)
        if is_finished(folder, inputs, foreign=bool(config.shards)):
            return None
        start_work(folder, inputs)
        if config.shards:
            return len(shards), [shard for shard, _ in shards]
        return write_chunks(_video_work(config)), []


def _run_tasks(config: PrepareJob, num_tasks: int, shard_names: ray.ObjectRef) -> None:
    """One task per shard; the driver gets two counts of each."""
    target = config.shards or config.output
    if config.shards:
        shard_work = ShardWork(
            config.shards, config.default_split, config.caption_source, config.num_trial_frames, config.decode
        )
        make_part = _part_fn(lambda number: index_shard(shard_work, number, ray.get(shard_names)[number]), target)
    else:
        video_work = _video_work(config)
        make_part = _part_fn(lambda number: write_chunk_shard(video_work, number), target)
    tasks = ray.data.range(num_tasks, override_num_blocks=num_tasks)
    parts = tasks.map(make_part, num_cpus=config.cpus_per_task)
    parts.set_name("prepare")  # in Ray's dashboard
    num_clips = num_quarantined = 0
    for done, part in enumerate(parts.iter_rows(), 1):
        if part["error"]:
            raise UserError(part["error"])
        num_clips, num_quarantined = num_clips + part["num_clips"], num_quarantined + part["num_quarantined"]
        logger.info("shard %d of %d: %d clips, %d quarantined", done, num_tasks, num_clips, num_quarantined)


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
def _join(config: PrepareJob, num_parts: int) -> str:
    return join_parts(
        config.shards or config.output,
        num_parts,
        damaged_shards_are_refused=config.damaged_shards == "refuse",
        max_quarantined=config.max_quarantined,
    )


def _video_work(config: PrepareJob) -> VideoWork:
    assert config.videos is not None and config.annotations is not None  # see _complete
    return VideoWork(
        config.videos,
        config.annotations,
        config.output,
        config.clips_per_shard,
        config.shard_name,
        config.default_split,
        config.unknown_columns,
        config.num_trial_frames,
        config.decode,
    )
