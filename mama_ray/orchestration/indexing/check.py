"""What lies in the folder of a table, compared with what the job is to make: what is done, and what cannot go on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import ray

from mama_ray.config import config_to_yaml, decisive_values
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.results import result_of, some_at_once
from mama_ray.orchestration.cluster.row_server import ServedRows
from mama_ray.orchestration.indexing.job import IndexJob
from mama_ray.orchestration.indexing.plan import IndexPlan, Part, hash_texts, texts_of
from mama_ray.search.embedding_parts import (
    IDENTITY_NAME,
    TABLE_VERSION,
    PartCounts,
    Summary,
    TableIdentity,
    find_summary,
    read_identity,
    read_part,
    write_summary,
)
from mama_ray.storage.failures import StorageError
from mama_ray.storage.files_of_others import refuse_others
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.small_files import FileFormError

logger = logging.getLogger(__name__)

_CONFIG_NAME = "config.yaml"
_PARTS_PER_TASK = 64
_TASK_CPUS = 0.5
_START_ANEW = "choose another --output"


@dataclass(frozen=True)
class FolderState:
    """What is in the folder: the counts of parts that are done, parts with other captions, clips without a feature."""

    done: dict[str, PartCounts] = field(default_factory=dict)
    other_captions: frozenset[str] = frozenset()
    num_errors: int = 0
    first_error: str | None = None


def require_same(job: IndexJob, plan: IndexPlan, output: Place) -> None:
    """Raise UserError where the folder holds the table of another job, or files of others in the places of ours."""
    ours = _identity(job, plan)
    if not _part_names(output):
        if "model_hash" not in ((output / IDENTITY_NAME).read_json() or {}):
            refuse_others(output, [_CONFIG_NAME, IDENTITY_NAME])  # of a run, of a model
    else:
        theirs = read_identity(output)
        if theirs.model_hash != ours.model_hash:
            theirs_model = f"{theirs.model} ({theirs.model_hash[:12]})"
            raise UserError(
                "the folder holds the index of another model",
                got=f"{ours.model} ({ours.model_hash[:12]})", wanted=theirs_model, remedy=_START_ANEW,
            )  # fmt: skip
        of_ours, of_theirs = (identity.model_dump()["job"] for identity in (ours, theirs))
        differing = sorted(key for key in of_ours if of_theirs.get(key) != of_ours[key])
        if differing:
            raise UserError(
                "the folder holds the index of another job",
                got=", ".join(f"{key} = {of_ours[key]}" for key in differing),
                wanted=", ".join(f"{key} = {of_theirs.get(key)}" for key in differing),
                remedy=_START_ANEW,
            )


def enter(job: IndexJob, plan: IndexPlan, output: Place) -> None:
    """Write config.json and config.yaml, before any part and after all that a folder may be refused for."""
    (output / IDENTITY_NAME).write_whole(_identity(job, plan).model_dump_json(indent=1))
    (output / _CONFIG_NAME).write_whole(config_to_yaml(job))


def look_at_parts(plan: IndexPlan, output: Place) -> FolderState:
    """Compare every part that is there with its clips. UserError where one is of clips that the shards do not have."""
    there = _part_names(output)
    known = {part.name for part in plan.parts}
    if strangers := sorted(there - known):
        raise _other_shards(plan, f"{strangers[0]}, of a shard that is gone")
    parts = [part for part in plan.parts if part.name in there]
    tasks = (
        _compare.remote(plan.table, plan.output, parts[start : start + _PARTS_PER_TASK], plan.dim)
        for start in range(0, len(parts), _PARTS_PER_TASK)
    )
    done: dict[str, PartCounts] = {}
    other_captions: set[str] = set()
    num_errors, first_error = 0, None
    for task in some_at_once(tasks):
        found, others = result_of(task)
        if others is not None:
            raise _other_shards(plan, others)
        done |= found.done
        other_captions |= found.other_captions
        num_errors, first_error = num_errors + found.num_errors, first_error or found.first_error
    return FolderState(done, frozenset(other_captions), num_errors, first_error)


def leave(plan: IndexPlan, output: Place, state: FolderState) -> bool:
    """Write the summary that makes the folder a table; returns False where it is there as it should be."""
    summary = Summary(parts={part.name: state.done[part.name] for part in plan.parts}, num_errors=state.num_errors)
    try:
        if find_summary(output) == summary:
            return False
    except FileFormError as error:
        logger.warning("the summary is written again: %s", error)
    write_summary(output, summary)
    return True


def _part_names(output: Place) -> set[str]:
    return {file.name for file in output.files() if file.name.endswith(".parquet")}


def _identity(job: IndexJob, plan: IndexPlan) -> TableIdentity:
    facts = {"job": decisive_values(job), "captions": job.captions}
    return TableIdentity(
        version=TABLE_VERSION, model_hash=plan.model_hash, model=job.model, shards=job.shards, dim=plan.dim, **facts
    )


def _other_shards(plan: IndexPlan, got: str) -> UserError:
    return UserError(
        "the folder holds the index of other clips",
        got=got,
        wanted=f"clips of {plan.shards}, to which shards may have been added",
        remedy=_START_ANEW,
    )


@ray.remote(num_cpus=_TASK_CPUS, name="index: compare parts")
def _compare(
    table: pa.Table | ServedRows, output: str, parts: Sequence[Part], dim: int
) -> tuple[FolderState, str | None]:
    """Return what is done of these parts, or the name of one that is of other clips."""
    done, other_captions, errors = {}, set(), []
    for part in parts:
        place = Place.of(output) / part.name
        columns = ("clip_id", "video_sha256", "error", "texts_sha256")
        try:
            with storage_errors(output):
                found = read_part(place, dim, columns)
        except StorageError:  # which is no fact about the part
            raise
        except UserError:
            if not place.is_file():
                raise
            logger.warning("%s is damaged and is made again", place)
            continue
        clips = table.select(["clip_id", "sha256", "captions"]).slice(part.start, part.stop - part.start)
        own = [clips[name].to_pylist() for name in ("clip_id", "sha256")]
        if [found[name].to_pylist() for name in ("clip_id", "video_sha256")] != own:
            return FolderState(), f"{part.name}, whose clips are others"
        texts = texts_of(clips.select(["captions"]).to_pylist())
        if found["texts_sha256"].to_pylist() != [hash_texts(captions) for captions in texts]:
            other_captions.add(part.name)
            continue
        errors += [error for error in found["error"].to_pylist() if error is not None]
        done[part.name] = PartCounts(num_clips=len(found), num_captions=sum(map(len, texts)))
    return FolderState(done, frozenset(other_captions), len(errors), errors[0] if errors else None), None
