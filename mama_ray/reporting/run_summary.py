"""From a run directory to what the report page shows of it: its records, its result, and the frames of the examples."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from mama_ray.data.index import read_clip_bytes, read_index
from mama_ray.data.shard import ShardError
from mama_ray.data.video.decode import DecodeError
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import Result, ResultFile, RetrievedExample, TopicResult
from mama_ray.reporting.content import Retrieval, RetrievedClip, RunReport, TopicRecall
from mama_ray.reporting.writers import read_metrics

TOPIC_METRIC = "t2v_R@1"
_STRIP_FRAMES = 4
_MAX_STRIP_PX = 128
_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "height", "captions")


def load_result(filesystem: fs.FileSystem, run: str, benchmark: str, label: str = "plain") -> Result:
    """Read one entry of `<run>/evaluation/<benchmark>.json`; UserError when it is not there."""
    path = f"{run.rstrip('/')}/evaluation/{benchmark}.json"
    try:
        with filesystem.open_input_stream(path) as file:
            results = {result.label: result for result in ResultFile.from_json(file.read()).results}
    except FileNotFoundError as error:
        raise UserError("the run has no such result", got=path, remedy="evaluate it with jobs/evaluate.py") from error
    if label not in results:
        raise UserError(f"{path} has no such entry", got=label, wanted=", ".join(results))
    return results[label]


def summarise_run(
    name: str,
    filesystem: fs.FileSystem,
    run: str,
    *,
    result: Result | None = None,
    retrievals: Sequence[Retrieval] = (),
    facts: Mapping[str, str] | None = None,
) -> RunReport:
    """Return what the page shows of one run; without a result it has training curves only."""
    records = read_metrics(filesystem, run)
    return RunReport(
        name=name,
        records=records,
        metrics=result.metrics if result else {},
        duration_s=training_time_s(records),
        topics=tuple(_topic_recall(topic) for topic in result.topics) if result else (),
        head_recall=_recall(result.head) if result else None,
        tail_recall=_recall(result.tail) if result else None,
        retrievals=tuple(retrievals),
        facts=facts or {},
    )


def training_time_s(records: Sequence[Mapping]) -> float | None:
    """Return the time spent in steps, summed over all starts of the run; validation and pauses do not count."""
    total, last = 0.0, -1
    for record in records:
        if record.get("throughput/step_s") is not None:
            total += record["throughput/step_s"] * (record["step"] - last)
            last = record["step"]
    return total or None


def load_retrievals(
    filesystem: fs.FileSystem, directory: str, examples: Sequence[RetrievedExample]
) -> tuple[Retrieval, ...]:
    """Fetch the frames of the retrieved clips from the shards in `directory`; an unreadable one is left out."""
    wanted = sorted({name for example in examples for name in example.retrieved})
    index = read_index(filesystem, directory, columns=_COLUMNS)
    rows = index.filter(pc.is_in(index["clip_id"], value_set=pa.array(wanted, pa.string()))).to_pylist()
    clips = {row["clip_id"]: clip for row in rows if (clip := _retrieved_clip(filesystem, directory, row)) is not None}
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


def _retrieved_clip(filesystem: fs.FileSystem, directory: str, row: dict):
    place = (row["shard"], row["offset"], row["num_bytes"])
    transform = TransformConfig(image_size=min(row["height"] or _MAX_STRIP_PX, _MAX_STRIP_PX), resize="center_crop")
    try:
        data = read_clip_bytes(filesystem, directory, *place, sha256=row["sha256"])
        return load_clip_frames(data, num_frames=_STRIP_FRAMES, transform=transform), row["captions"][0]["text"]
    except (DecodeError, ShardError, OSError):
        return None


def _topic_recall(topic: TopicResult) -> TopicRecall:
    return TopicRecall(topic.topic, topic.num_train, topic.metrics.get(TOPIC_METRIC, float("nan")))


def _recall(group: TopicResult | None) -> float | None:
    return None if group is None else group.metrics.get(TOPIC_METRIC)
