"""What an index is to hold: loaded in tasks, so that the driver holds counts and names of parts alone."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray

from mama_ray.captioning.join import COLUMNS, join_captions
from mama_ray.captioning.table import read_caption_files
from mama_ray.data.index import clips_per_shard, read_index, select_split
from mama_ray.data.shard_check import check_shards
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.indexing.job import IndexJob
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "source_sha256", "captions")
_LOAD_CPUS, _MODEL_CPUS = 0.5, 1.0


@dataclass(frozen=True)
class Part:
    """A file of the table: rows [start, stop) of the plan's clips, all of one shard."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class IndexPlan:
    """What tasks and actors need to know; picklable and small. `table` holds the job's clips with all captions."""

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


def make_plan(job: IndexJob) -> IndexPlan:
    """Read the clips and look at the model, in tasks. Raises UserError for whatever is wrong with them."""
    table, parts = _load_clips.options(num_returns=2).remote(job)
    model_hash, dim = result_of(_look_at_model.remote(job.model, job.batch_size))
    names = result_of(parts, table)
    return IndexPlan(table, names, job.shards, job.output, job.model, model_hash, dim, job.batch_size)


def texts_of(records: Iterable[Mapping]) -> list[list[tuple[str, str]]]:
    """Return the (source, text) of the captions of each clip, in their order."""
    return [[(caption["source"], caption["text"]) for caption in record["captions"]] for record in records]


def hash_texts(captions: list[tuple[str, str]]) -> str:
    """Return what stands for a clip's captions."""
    return hashlib.sha256(json.dumps(captions).encode()).hexdigest()


@ray.remote(num_cpus=_LOAD_CPUS, name="index: load clips")
def _load_clips(job: IndexJob) -> tuple[pa.Table, tuple[Part, ...]]:
    start_worker_logging()
    with storage_errors(job.shards):
        folder = Place.of(job.shards)
        table = read_index(folder, columns=(*_COLUMNS, "split"))
        check_shards(folder, table)
    if job.split is not None:
        table = select_split(table, job.split)
    if not len(table):
        raise UserError("no clips to index", got=f"{job.shards}, split {job.split or 'any'}", wanted="at least one")
    table = table.select(_COLUMNS)
    if job.captions:
        files = {uri: read_caption_files(Place.of(uri), columns=COLUMNS) for uri in job.captions}
        table, uses = join_captions(table, files, exclude_flags=job.exclude_flags)
        for uri, use in uses.items():
            logger.info("%s: %d captions, %d left out by flags", uri, use.used, use.flagged)
    table = table.combine_chunks()
    return table, tuple(_parts(table, job.part_clips))


def _parts(table: pa.Table, part_clips: int) -> Iterable[Part]:
    """Yield the parts: those of a shard are the same, whatever other shards there are."""
    stops = np.cumsum(clips_per_shard(table)).tolist()
    for start, stop in zip([0, *stops], stops, strict=False):
        shard = table["shard"][start].as_py().removesuffix(".tar").replace("/", "--")
        for number, first in enumerate(range(start, stop, part_clips)):
            yield Part(f"{shard}-{number:04d}.parquet", first, min(first + part_clips, stop))


@ray.remote(num_cpus=_MODEL_CPUS, name="index: look at model")
def _look_at_model(model: str, batch_size: int) -> tuple[str, int]:
    start_worker_logging()
    towers = Towers.load(model, device="cpu", batch_size=batch_size)
    return towers.model_hash, towers.dim
