"""What the page shows of a run is what lies in its directory and in its shards."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import ResultFile, RetrievedExample, TopicResult
from mama_ray.reporting.run_summary import load_result, load_retrievals, summarise_run, training_time_s
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video
from tests.evaluation.test_protocol import make_result


def write_shards(directory: Path, videos: list[bytes]) -> None:
    samples = [
        (Clip(f"c{n}", f"v{n}", 0.0, 1.0, (Caption(f"text {n}"),), split="test"), video, "mp4")
        for n, video in enumerate(videos)
    ]
    places = write_shard(directory / "clips-000000.tar", samples)
    facts = {"duration_s": 1.0, "width": 64, "height": 48, "fps": 8.0, "codec": "h264"}
    rows = [
        index_row(clip, place, "clips-000000.tar", facts) for (clip, *_), place in zip(samples, places, strict=True)
    ]
    shards = {
        "clips-000000.tar": {"num_bytes": (directory / "clips-000000.tar").stat().st_size, "num_clips": len(rows)}
    }
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], shards)


def test_training_time_is_that_of_the_steps():
    records = [
        {"step": 9, "throughput/step_s": 0.5},
        {"step": 9, "val/loss": 1.0},
        {"step": 19, "throughput/step_s": 0.25},
    ]
    assert training_time_s(records) == pytest.approx(10 * 0.5 + 10 * 0.25)
    assert training_time_s([]) is None


def test_a_run_is_summarised_from_its_directory(tmp_path):
    with MetricsWriter(Place.of(tmp_path), tensorboard=False) as writer:
        writer.write(9, {"train/loss": 2.0, "throughput/step_s": 0.5})
    tail = TopicResult(topic="tail", num_train=3, num_videos=4, metrics={"t2v_R@1": 7.5})
    stored = make_result(deviation="390 of 400").model_copy(update={"topics": (tail,), "tail": tail})
    (tmp_path / "evaluation").mkdir()
    file = ResultFile(benchmark="embedded", results=(stored,), duration_s=1.0)
    (tmp_path / "evaluation/embedded.json").write_text(file.to_json())
    result = load_result(Place.of(tmp_path), "embedded")
    run = summarise_run("a run", Place.of(tmp_path), result=result, facts={"margin": "0"})
    assert run.benchmark == "embedded (390 of 400)"
    assert (run.duration_s, run.metrics["t2v_R@1"], run.head_recall, run.tail_recall) == (5.0, 12.25, None, 7.5)
    assert [(topic.topic, topic.num_train, topic.recall) for topic in run.topics] == [("tail", 3, 7.5)]


def test_a_result_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"embedded\.json"):
        load_result(Place.of(tmp_path), "embedded")


def test_retrieved_clips_are_read_from_the_shards_and_broken_ones_left_out(tmp_path):
    write_shards(tmp_path, [make_video(num_frames=8), b"not a video" * 30, make_video(num_frames=5)])
    example = RetrievedExample(text="a query", clip_id="c2", rank=3.0, retrieved=("c0", "c1", "c2"))
    (retrieval,) = load_retrievals(Place.of(tmp_path), [example])
    assert [(clip.caption, clip.is_right) for clip in retrieval.clips] == [("text 0", False), ("text 2", True)]
    assert retrieval.clips[0].frames.shape == (4, 48, 48, 3)
    assert retrieval.clips[0].frames.dtype == np.uint8
