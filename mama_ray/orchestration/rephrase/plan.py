"""What a rephrasing job is to do and what is done: loaded and scanned in tasks, so the driver holds counts alone."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.rephrasing.model_folder import Rephraser, inspect_rephraser
from mama_ray.captioning.rephrasing.settings import DecodingConfig, WordingConfig
from mama_ray.data.index_rows import IndexRows, rows_of_split
from mama_ray.errors import UserError
from mama_ray.models.hub import require_weights, revision_of
from mama_ray.orchestration.captioning.pending import PendingChunks, find_pending
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.storage.places import Place, storage_errors

_TASK_CPUS, _TRANSFORMERS_CPUS = 0.5, 1.0
_COLUMNS = ("clip_id", "sha256", "captions")
_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class RephrasePlan:
    """What tasks and actors need to know; picklable and small.

    `table` refers to what takes clip_id, sha256 and captions of the job's clips in the order of the index: a table, or
    what takes rows as a table does.
    """

    table: ray.ObjectRef
    num_clips: int
    num_texts: int
    texts_sha256: str
    output: str
    model: str
    rephraser: Rephraser
    decoding: DecodingConfig
    wording: WordingConfig
    engine: EngineConfig


def load_texts(shards: str, split: str | None) -> tuple[ray.ObjectRef, int, int, str]:
    """Return the job's clips with their human captions (a reference), the numbers of both, and a hash of them.

    Raises UserError for whatever is wrong with the index, and where no clip has a human caption.
    """
    rows, facts = _load_texts.options(num_returns=2).remote(shards, split, row_server.MAX_HELD_ROWS)
    num_clips, num_texts, sha256 = result_of(facts, rows)
    return row_server.shared_rows(rows, num_clips, _COLUMNS), num_clips, num_texts, sha256


def with_texts(clips: pa.Table) -> list[dict]:
    """Return clip_id, sha256 and texts, the human captions, of rows of a plan's table."""
    columns = {"clip_id": clips["clip_id"], "sha256": clips["sha256"]}
    return pa.table(columns | {"texts": human_texts(clips["captions"].combine_chunks())}).to_pylist()


def find_rephraser(model: str, prompt: str | None, decoding: DecodingConfig, engine: EngineConfig) -> Rephraser:
    """Check the model's folder, the prompt and whether the engine runs it, in a task: the driver need not have the
    packages and the memory."""
    return result_of(_find_rephraser.remote(model, prompt, decoding, engine))


def scan_pending(plan: RephrasePlan) -> PendingChunks:
    """List the committed parts and return what is left."""
    return find_pending(plan.output, plan.num_clips)


@contextmanager
def planned_folder(plan: RephrasePlan) -> Iterator[Path]:
    """Give a local folder of the plan's model; UserError where its weights are others than when the job began."""
    with rephraser_folder(plan.model, revision=plan.rephraser.revision) as folder:
        require_weights(folder, plan.rephraser.weights_sha256, plan.model)
        yield folder


@contextmanager
def rephraser_folder(model: str, *, revision: str | None = None) -> Iterator[Path]:
    """Give a local folder of the model: a path, a URI (downloaded for as long as it is used) or a hub id."""
    if "://" not in model and model.startswith("/"):  # a path, also where nothing is: its absence is told as such
        yield Path(model)
    else:
        with model_folder(model, revision=revision) as folder:
            yield folder


def human_texts(captions: pa.ListArray | pa.LargeListArray) -> pa.LargeListArray:
    """Return the texts of the human captions of every clip, in their order."""
    flat, parents = pc.list_flatten(captions), pc.list_parent_indices(captions).to_numpy(zero_copy_only=False)
    is_human = pc.fill_null(pc.equal(pc.struct_field(flat, "source"), "human"), False)
    counts = np.bincount(parents[is_human.to_numpy(zero_copy_only=False)], minlength=len(captions))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    texts = pc.struct_field(flat, "text").filter(is_human).cast(pa.large_string())
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), texts)


@ray.remote(num_cpus=_TASK_CPUS, name="rephrase: load captions")
def _load_texts(shards: str, split: str | None, max_held: int) -> tuple[pa.Table | IndexRows, tuple[int, int, str]]:
    """Return the rows of a job, as a table where they are at most `max_held`, and what `load_texts` tells of them."""
    with storage_errors(shards):
        rows = rows_of_split(Place.of(shards), split, _COLUMNS)
        num_texts, sources, digest = 0, Counter[str](), hashlib.sha256()
        for table in rows.batches(_COLUMNS, _ROWS_AT_ONCE):
            found = with_texts(table)
            num_texts += sum(len(row["texts"]) for row in found)
            sources.update(pc.struct_field(pc.list_flatten(table["captions"].combine_chunks()), "source").to_pylist())
            for row in found:
                told = "\0".join([row["clip_id"], row["sha256"], *row["texts"], "\n"])
                digest.update(told.encode("utf-8", "replace"))
        if not num_texts:
            told = ", ".join(f"{count} {source}" for source, count in sources.most_common()) or "no"
            raise UserError(
                "no human captions to rephrase",
                got=f"{len(rows)} clips of split {split or 'any'} with {told} captions in {shards}",
                wanted="captions of source human",
                remedy="name another --split, or prepare the shards with annotations",
            )
        return rows.read() if len(rows) <= max_held else rows, (len(rows), num_texts, digest.hexdigest())


@ray.remote(num_cpus=_TRANSFORMERS_CPUS, name="rephrase: look at model")
def _find_rephraser(model: str, prompt: str | None, decoding: DecodingConfig, engine: EngineConfig) -> Rephraser:
    start_worker_logging()
    try:
        with rephraser_folder(model) as folder:
            found = inspect_rephraser(folder, prompt, decoding, engine)
            return replace(found, revision=revision_of(folder))
    except OSError as error:
        raise UserError("the model cannot be read", got=f"{model} ({' '.join(str(error).split())})") from error
