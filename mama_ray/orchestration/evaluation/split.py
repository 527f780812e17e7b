"""The split that is evaluated: its rows in the object store, and the few facts of it that the driver uses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import ray

from mama_ray.data.captions import caption_for_evaluation
from mama_ray.data.index import check_shards, hash_ids, read_index, select_split
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.storage.places import Place, storage_errors

_COLUMNS = ["clip_id", "shard", "offset", "num_bytes", "sha256", "topic", "captions"]
_TASK_CPUS = 0.5


@dataclass(frozen=True)
class EvaluatedSplit:
    """Rows 0 .. num_clips - 1 of `table` are the clips; train_counts are the training clips of every topic."""

    table: ray.ObjectRef
    num_clips: int
    train_counts: dict[str, int]

    def pick(self, rows: np.ndarray) -> list[dict]:
        """Return clip_id and captions of a few rows."""
        return result_of(_pick.options(name="evaluate: pick rows").remote(self.table, rows))

    def topics_and_hash(self, rows: np.ndarray) -> tuple[list[str | None], str]:
        """Return the topic of every row, and the hash of the clip ids of the given rows."""
        return result_of(_topics_and_hash.options(name="evaluate: topics").remote(self.table, rows))


def load_evaluated_split(shards: str, benchmark: BenchmarkConfig) -> EvaluatedSplit:
    """Check shards and captions and load the split, in a task: the driver's memory does not grow with the index."""
    table, facts = _load.options(name="evaluate: load split", num_returns=2).remote(shards, benchmark)
    return EvaluatedSplit(table, *result_of(facts, table))


@ray.remote(num_cpus=_TASK_CPUS)
def _load(shards: str, benchmark: BenchmarkConfig) -> tuple:
    folder = Place.of(shards)
    with storage_errors(shards):
        index = read_index(folder)
        check_shards(folder, index)
    table = select_split(index, benchmark.split).select(_COLUMNS).combine_chunks()
    _check_captions(table["clip_id"].to_pylist(), table["captions"].to_pylist(), benchmark)
    train = index.filter(pc.equal(index["split"], "train"))
    counts = {row["values"]: row["counts"] for row in pc.value_counts(train["topic"]).to_pylist() if row["values"]}
    return table, (len(table), counts)


def _check_captions(clip_ids: Sequence[str], captions: Sequence[list[dict]], benchmark: BenchmarkConfig) -> None:
    for clip_id, own in zip(clip_ids, captions, strict=True):
        try:
            caption_for_evaluation(own, benchmark.caption_mode)
        except UserError as error:
            raise UserError(f"clip {clip_id} does not fit the benchmark {benchmark.dataset} ({error})") from error


@ray.remote(num_cpus=_TASK_CPUS)
def _topics_and_hash(table, rows: np.ndarray) -> tuple[list[str | None], str]:
    return table["topic"].to_pylist(), hash_ids(table["clip_id"].take(rows).to_pylist())


@ray.remote(num_cpus=_TASK_CPUS)
def _pick(table, rows: np.ndarray) -> list[dict]:
    return table.select(["clip_id", "captions"]).take(rows).to_pylist()
