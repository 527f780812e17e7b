"""The committed rows of one file of the table: read, held against the index, and damaged ones put away."""

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
import pyarrow as pa
import ray

from mama_ray.orchestration.captioning.parts import (
    CLIPS_PER_FILE,
    PART_SCHEMA,
    list_parts,
    part_place,
    read_part,
    rows_of_part,
)
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.similarity import forget_similarities
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


def num_files(num_clips: int) -> int:
    """Return the number of files of a table."""
    return -(-num_clips // CLIPS_PER_FILE)


class PlanOfParts(Protocol):
    """A job that commits parts of its clips' rows: captions, or rephrased ones."""

    @property
    def output(self) -> str:
        """Where its table is made."""

    @property
    def num_clips(self) -> int:
        """Clips of the job."""


def read_rows(
    plan: PlanOfParts,
    number: int,
    *,
    schema: pa.Schema = PART_SCHEMA,
    read: Callable[[Place, str], pa.Table | None] = read_part,
) -> tuple[pa.Table, list[str]]:
    """Return the committed rows of a file, sorted, each (row, sample) once; and the names of damaged parts.

    `schema` is that of a part, `read` gives one by folder and name, None for one that is damaged.
    """
    folder = Place.of(plan.output)
    start, stop = number * CLIPS_PER_FILE, min((number + 1) * CLIPS_PER_FILE, plan.num_clips)
    tables, damaged = [schema.empty_table()], []
    seen = np.zeros(stop - start, bool)
    for name in list_parts(folder, number):
        own = np.array(rows_of_part(name))
        table = read(folder, name)
        if table is None:
            damaged.append(name)
            continue
        fresh = own[~seen[own - start]]  # a zombie task may have written clips that were given to another as well
        seen[fresh - start] = True
        tables.append(table.filter(pa.array(np.isin(table["row"].to_numpy(), fresh))))
    return pa.concat_tables(tables).sort_by([("row", "ascending"), ("sample", "ascending")]), damaged


def put_away(plan: CaptionPlan, damaged: list[str]) -> None:
    """Remove damaged parts, so that their clips are captioned again."""
    folder = Place.of(plan.output)
    for name in damaged:
        logger.warning("part %s is damaged: its clips are captioned again", name)
        part_place(folder, name).delete_file()
        forget_similarities(folder, rows_of_part(name) or [])


def missing_rows(plan: PlanOfParts, number: int, table: pa.Table) -> list[int]:
    """Return the rows of a file that no part of the listing has; a warning says that they are looked for again.

    A listing may be of some time ago, as those of NFS are for a minute.
    """
    start, stop = number * CLIPS_PER_FILE, min((number + 1) * CLIPS_PER_FILE, plan.num_clips)
    missing = np.setdiff1d(np.arange(start, stop), table["row"].to_numpy()).tolist()
    if missing:
        logger.warning("%d clips of file %d of the table are in no part that is listed", len(missing), number)
    return missing


def told_as_missing(number: int, rows: list[int]) -> str:
    """Return what stands for rows that are missing among the names of damaged parts."""
    return f"{len(rows)} clips of file {number}"


def check_rows(plan: CaptionPlan, number: int, table: pa.Table) -> None:
    """Raise RuntimeError unless the table holds every clip of the file's rows, once per sample, as the index has it."""
    start, stop = number * CLIPS_PER_FILE, min((number + 1) * CLIPS_PER_FILE, plan.num_clips)
    index = ray.get(plan.table).slice(start, stop - start)
    num_captions = plan.sampling.num_captions
    for ours, theirs in (("clip_id", "clip_id"), ("video_sha256", "sha256")):
        wanted = np.repeat(index[theirs].to_numpy(zero_copy_only=False), num_captions)
        if not np.array_equal(table[ours].to_numpy(), wanted):
            raise RuntimeError(f"file {number} of the table: its {ours}s are not those of the index, once per sample")
    samples = np.tile(np.arange(num_captions), stop - start)
    if not np.array_equal(table["sample"].to_numpy(), samples):
        raise RuntimeError(f"file {number} of the table: clips without all of their samples")
