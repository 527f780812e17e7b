"""What an index is to hold: loaded in tasks, so that the driver holds counts and names of parts alone."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import ray

from mama_ray.captioning.join import COLUMNS, TableUse, join_captions
from mama_ray.captioning.large_join import ReadTable, large_join
from mama_ray.captioning.table import read_caption_files
from mama_ray.data.index_file import write_rows
from mama_ray.data.index_rows import IndexRows, choose_rows
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.indexing.job import IndexJob
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "source_sha256", "captions")
_LOAD_CPUS, _MODEL_CPUS = 0.5, 1.0
CLIPS_FOLDER = ".clips"
"""Of a table that is being made: the clips of a large corpus with the captions of tables."""


@dataclass(frozen=True)
class Part:
    """A file of the table: rows [start, stop) of the plan's clips, all of one shard."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class IndexPlan:
    """What tasks and actors need to know; picklable, and small but for a name for each part.

    `table` refers to what takes the job's clips with all captions: a table, or what takes rows as a table does.
    """

    table: ray.ObjectRef
    parts: tuple[Part, ...]
    shards: str
    output: str
    model: str
    model_hash: str
    dim: int
    batch_size: int

    @property
    def num_clips(self) -> int:
        """Clips of the table."""
        return self.parts[-1].stop


def make_plan(job: IndexJob, work: str) -> IndexPlan:
    """Read the clips and look at the model, in tasks. Raises UserError for whatever is wrong with them.

    work: URI of a folder for the clips of a large corpus with the captions of tables.
    """
    table, parts = _load_clips.options(num_returns=2).remote(job, row_server.MAX_HELD_ROWS, work)
    model_hash, dim = result_of(_look_at_model.remote(job.model, job.batch_size))
    names = result_of(parts, table)
    table = row_server.shared_rows(table, names[-1].stop, _COLUMNS)
    return IndexPlan(table, names, job.shards, job.output, job.model, model_hash, dim, job.batch_size)


def texts_of(records: Iterable[Mapping]) -> list[list[tuple[str, str]]]:
    """Return the (source, text) of the captions of each clip, in their order."""
    return [[(caption["source"], caption["text"]) for caption in record["captions"]] for record in records]


def hash_texts(captions: list[tuple[str, str]]) -> str:
    """Return what stands for a clip's captions."""
    return hashlib.sha256(json.dumps(captions).encode()).hexdigest()


@ray.remote(num_cpus=_LOAD_CPUS, name="index: load clips")
def _load_clips(job: IndexJob, max_held: int, work: str) -> tuple[pa.Table | IndexRows, tuple[Part, ...]]:
    """Return the rows of a job, as a table where they are at most `max_held`, and its parts."""
    start_worker_logging()
    with storage_errors(job.shards):
        rows, _ = choose_rows(Place.of(job.shards), job.split, _COLUMNS)
    if not len(rows):
        raise UserError("no clips to index", got=f"{job.shards}, split {job.split or 'any'}", wanted="at least one")
    with storage_errors(job.shards):
        parts = tuple(_parts(rows, job.part_clips))
        if len(rows) > max_held:
            return _with_captions(rows, job, Place.of(work)), parts
        table = rows.read()
    if job.captions:
        files = {uri: read_caption_files(Place.of(uri), columns=COLUMNS) for uri in job.captions}
        table, uses = join_captions(table, files, exclude_flags=job.exclude_flags)
        _tell(uses)
    return table.combine_chunks(), parts


def _with_captions(rows: IndexRows, job: IndexJob, work: Place) -> IndexRows:
    """Return rows with the captions of the job's tables: of an index of their own, in the folder for it."""
    if not job.captions:
        return rows
    tables: dict[str, ReadTable] = {uri: partial(_read, uri) for uri in job.captions}
    place = work / "clips.parquet"
    with large_join(rows.tables(["clip_id"]), tables, exclude_flags=job.exclude_flags) as found:
        _tell(found.uses)
        index = write_rows(place, found.add_to(rows.tables()), _COLUMNS, rows.index.shard_sizes())
    return IndexRows(index, _COLUMNS)


def _read(uri: str, columns: Sequence[str]) -> Iterable[pa.Table]:
    return read_caption_files(Place.of(uri), columns=columns)


def _tell(uses: Mapping[str, TableUse]) -> None:
    for uri, use in uses.items():
        logger.info("%s: %d captions, %d left out by flags", uri, use.used, use.flagged)


def _parts(rows: IndexRows, part_clips: int) -> Iterable[Part]:
    """Yield the parts: those of a shard are the same, whatever other shards there are."""
    start, shards = 0, rows.shards()
    names = _names_of(shard for shard, _ in shards)
    for shard, count in shards:
        for number, first in enumerate(range(start, start + count, part_clips)):
            yield Part(f"{names[shard]}-{number:04d}.parquet", first, min(first + part_clips, start + count))
        start += count


def _names_of(shards: Iterable[str]) -> dict[str, str]:
    """Return how the files of each shard are called: as the shard, with a hash where another is called the same."""
    names, taken = {}, set()
    # Of a/b.tar and a--b.tar the first has the plain name, whatever the order of the index.
    for shard in sorted(shards, key=lambda shard: (shard.count("--"), shard)):
        plain = shard.removesuffix(".tar").replace("/", "--")
        names[shard] = f"{plain}-{hashlib.sha256(shard.encode()).hexdigest()[:16]}" if plain in taken else plain
        taken.add(plain)
    return names


@ray.remote(num_cpus=_MODEL_CPUS, name="index: look at model")
def _look_at_model(model: str, batch_size: int) -> tuple[str, int]:
    start_worker_logging()
    towers = Towers.load(model, device="cpu", batch_size=batch_size)
    return towers.model_hash, towers.dim
