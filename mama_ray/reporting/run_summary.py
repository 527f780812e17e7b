"""From a run directory to what the report page shows of it: its records, its result, and the frames of the examples."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.index_file import open_index
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import (
    CheckpointName,
    Result,
    ResultFile,
    RetrievedExample,
    TopicResult,
    describe_checkpoint,
)
from mama_ray.reporting.content import Answering, Retrieval, RetrievedClip, RunReport, TopicRecall
from mama_ray.reporting.provenance import read_num_val, read_provenance, read_settings
from mama_ray.reporting.writers import read_metrics, read_series
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_JSON_BYTES

TOPIC_METRIC = "t2v_R@1"
_STRIP_FRAMES = 4
_MAX_STRIP_PX = 128
_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "height", "captions")


def load_result(run_folder: Place, benchmark: str, label: str = "plain") -> Result:
    """Read one entry of `<run>/evaluation/<benchmark>.json`; UserError when it is not there."""
    place = run_folder / f"evaluation/{benchmark}.json"
    try:
        results = {result.label: result for result in ResultFile.from_json(place.read_bytes(MAX_JSON_BYTES)).results}
    except FileNotFoundError as error:
        raise UserError(
            "the run has no such result", got=f"{place}", remedy="evaluate it with jobs/evaluate.py"
        ) from error
    if label not in results:
        raise UserError(f"{place} has no such entry", got=label, wanted=", ".join(results))
    return results[label]


def summarise_run(
    name: str,
    run_folder: Place,
    *,
    result: Result | None = None,
    retrievals: Sequence[Retrieval] = (),
    facts: Mapping[str, str] | None = None,
    answering: Answering | None = None,
    checkpoint: CheckpointName | None = None,
) -> RunReport:
    """Return what the page shows of one run; without a result it has training curves only.

    checkpoint: which one `answering` is of.
    """
    evaluated = result.checkpoint if result else checkpoint
    records = read_metrics(run_folder)
    return RunReport(
        name=name,
        benchmark=result.protocol.name if result else "",
        records=records,
        metrics=result.metrics if result else {},
        duration_s=training_time_s(records),
        topics=tuple(_topic_recall(topic) for topic in result.topics) if result else (),
        head_recall=_recall(result.head) if result else None,
        tail_recall=_recall(result.tail) if result else None,
        retrievals=tuple(retrievals),
        facts=facts or {},
        num_val=read_num_val(run_folder),
        provenance=read_provenance(run_folder, records, describe_checkpoint(evaluated) if evaluated else None),
        settings=read_settings(run_folder),
        answering=answering,
    )


def training_time_s(records: Sequence[Mapping]) -> float | None:
    """Return the time spent in steps, summed over all starts of the run; validation and pauses do not count."""
    total, last = 0.0, 0
    for step, step_s in zip(*read_series(records, "throughput/step_s"), strict=True):
        total += step_s * (step - last)
        last = step
    return total or None


def load_retrievals(folder: Place, examples: Sequence[RetrievedExample]) -> tuple[Retrieval, ...]:
    """Fetch the frames of the retrieved clips from the shards in `folder`; an unreadable one is left out."""
    clips = load_clips(folder, {name for example in examples for name in example.retrieved})
    return tuple(
        Retrieval(
            query=example.text,
            rank=example.rank,
            clips=tuple(
                RetrievedClip(clips[name][0], clips[name][1], name == example.clip_id)
                for name in example.retrieved
                if name in clips
            ),
        )
        for example in examples
    )


def load_clips(folder: Place, clip_ids: Iterable[str]) -> dict[str, tuple[np.ndarray, str]]:
    """Return a few frames and the first caption of clips by id; those that cannot be read are left out."""
    wanted = pa.array(sorted(set(clip_ids)), pa.large_string())
    rows: list[dict] = []
    for table in open_index(folder).tables(_COLUMNS) if len(wanted) else ():
        rows += table.filter(pc.is_in(table["clip_id"], value_set=wanted)).to_pylist()
    return {row["clip_id"]: clip for row in rows if (clip := _retrieved_clip(folder, row)) is not None}


def _retrieved_clip(folder: Place, row: dict) -> tuple[np.ndarray, str] | None:
    place = (row["shard"], row["offset"], row["num_bytes"])
    transform = TransformConfig(image_size=min(row["height"] or _MAX_STRIP_PX, _MAX_STRIP_PX), resize="center_crop")
    try:
        data = read_clip_bytes(folder, *place, sha256=row["sha256"])
        caption = row["captions"][0]["text"] if row["captions"] else ""
        return load_clip_frames(data, num_frames=_STRIP_FRAMES, transform=transform), caption
    except (DecodeError, ShardError):
        return None


def _topic_recall(topic: TopicResult) -> TopicRecall:
    return TopicRecall(topic.topic, topic.num_train, topic.metrics.get(TOPIC_METRIC, float("nan")))


def _recall(group: TopicResult | None) -> float | None:
    return None if group is None else group.metrics.get(TOPIC_METRIC)
