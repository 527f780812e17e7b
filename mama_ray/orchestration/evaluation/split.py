"""The split that is evaluated: its rows in the object store, and the few facts of it that the driver uses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray

from mama_ray.data.captions import caption_for_evaluation
from mama_ray.data.clip import SPLITS
from mama_ray.data.index import hash_ids
from mama_ray.data.index_rows import Chosen, IndexRows, check_index
from mama_ray.errors import UserError
from mama_ray.evaluation.coverage import Coverage, has_official_videos
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.evaluation.refused import RefusedClips, read_refused
from mama_ray.storage.places import Place, storage_errors

_COLUMNS = ["clip_id", "shard", "offset", "num_bytes", "sha256", "topic", "captions"]
_TASK_CPUS = 0.5


@dataclass(frozen=True)
class EvaluatedSplit:
    """Rows 0 .. num_clips - 1 of `table` are the clips.

    Attributes:
        train_counts: training clips of every topic.
        coverage: what the split has of the benchmark.
        refused: clips of the split that are in no row.
    """

    table: ray.ObjectRef
    num_clips: int
    train_counts: dict[str, int]
    coverage: Coverage
    refused: RefusedClips

    def pick(self, rows: np.ndarray) -> list[dict]:
        """Return clip_id and captions of a few rows."""
        return result_of(_pick.options(name="evaluate: pick rows").remote(self.table, rows))

    def topics_and_hash(self, rows: np.ndarray, others: Sequence[str] = ()) -> tuple[list[str | None], str]:
        """Return the topic of every row, and the hash of the clip ids of the given rows and of other ids."""
        return result_of(_topics_and_hash.options(name="evaluate: topics").remote(self.table, rows, list(others)))


def load_evaluated_split(shards: str, benchmark: BenchmarkConfig) -> EvaluatedSplit:
    """Check shards and captions and load the split, in a task: the driver's memory does not grow with the index."""
    table, facts = _load.options(name="evaluate: load split", num_returns=2).remote(shards, benchmark)
    return EvaluatedSplit(table, *result_of(facts, table))


@ray.remote(num_cpus=_TASK_CPUS)
def _load(shards: str, benchmark: BenchmarkConfig) -> tuple:
    folder = Place.of(shards)
    with storage_errors(shards):
        index, splits = check_index(folder)
        own, train = (Chosen.of(splits == SPLITS.index(split)) for split in (benchmark.split, "train"))
        whole = IndexRows(index, (*_COLUMNS, "video_id"), own).read()
        topics = IndexRows(index, ("topic",), train).count("topic")
    table = whole.select(_COLUMNS)
    if not len(table):
        counts = [f"{count} {split}" for split, count in zip(SPLITS, np.bincount(splits, minlength=4), strict=False)]
        raise UserError(
            f"no clips of split {benchmark.split} to evaluate on",
            got=f"{shards} with {', '.join(told for told in counts if not told.startswith('0 ')) or 'no clips'}",
            remedy="name the split in the table of the clips, or draw it: jobs/prepare.py --split",
        )
    clip_ids, video_ids = table["clip_id"].to_pylist(), whole["video_id"].to_pylist()
    captions = table["captions"].to_pylist()
    _check_captions(clip_ids, captions, benchmark)
    with storage_errors(shards):
        refused = read_refused(folder, benchmark.split, clip_ids, video_ids)
    is_official = has_official_videos(video_ids, benchmark, refused=[clip["video_id"] or "" for clip in refused.clips])
    coverage = Coverage(len(table), sum(map(len, captions)), len(refused.clips), is_official)
    counts = {topic: count for topic, count in topics.items() if topic}
    return table, (len(table), counts, coverage, refused)


def _check_captions(clip_ids: Sequence[str], captions: Sequence[list[dict]], benchmark: BenchmarkConfig) -> None:
    unfit: dict[str, UserError] = {}
    for clip_id, own in zip(clip_ids, captions, strict=True):
        try:
            caption_for_evaluation(own, benchmark.caption_mode)
        except UserError as error:
            unfit[clip_id] = error
    if unfit:
        clip_id, error = next(iter(unfit.items()))
        others = f" and {len(unfit) - 1} others" if len(unfit) > 1 else ""
        which = f"{benchmark.split} clip {clip_id}{others}"
        raise UserError(f"{which} do not fit the benchmark {benchmark.dataset} ({error})") from error


@ray.remote(num_cpus=_TASK_CPUS)
def _topics_and_hash(table, rows: np.ndarray, others: list[str]) -> tuple[list[str | None], str]:
    return table["topic"].to_pylist(), hash_ids([*table["clip_id"].take(rows).to_pylist(), *others])


@ray.remote(num_cpus=_TASK_CPUS)
def _pick(table, rows: np.ndarray) -> list[dict]:
    return table.select(["clip_id", "captions"]).take(rows).to_pylist()
