"""Copies of training clips in val and test are found, named and written down; the splits stay as they are."""

import csv
import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.errors import UserError
from mama_ray.orchestration.duplicates.job import DuplicatesJob
from mama_ray.orchestration.duplicates.run import find_duplicates
from mama_ray.storage.places import Place
from tests.data.video.test_fingerprint import scene

FACTS = {"duration_s": 1.0, "width": 96, "height": 64, "fps": 6.0, "codec": "h264"}


def encode(frames: np.ndarray, *, size: tuple[int, int] = (96, 64), crf: int = 23) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=6, options={"crf": str(crf)})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame).reformat(*size)))
        container.mux(video.encode())
    return stream.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    folder.mkdir()
    videos = {f"train-{n}": encode(scene(n)) for n in range(6)} | {"meta-0": encode(scene(20))}
    videos |= {"val-copy": encode(scene(3), size=(64, 48), crf=33), "val-other": encode(scene(50))}
    videos |= {"test-same": videos["meta-0"], "test-other": encode(scene(51)), "test-broken": b"no video" * 50}
    samples = [
        (Clip(name, f"video-of-{name}", 0.0, 1.0, (Caption("words"),), None, name.partition("-")[0]), video, "mp4")
        for name, video in videos.items()
    ]
    name = "clips-000000.tar"
    places = write_shard(folder / name, samples)
    rows = [index_row(clip, place, name, FACTS) for (clip, *_), place in zip(samples, places, strict=True)]
    sizes = {name: {"num_bytes": (folder / name).stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(folder), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return folder


@pytest.mark.ray
def test_copies_across_splits_are_told_and_listed(ray_cluster, shards, tmp_path, caplog):
    output = tmp_path / "found" / "pairs.csv"
    line = find_duplicates(DuplicatesJob(shards=str(shards), output=str(output)))
    assert line.startswith(
        "2 of 5 clips of val and test look like clips of train and meta, such as test-same like meta-0"
    )
    assert line.endswith(str(output)) and "\n" not in line
    with output.open() as stream:
        pairs = {row["clip_id"]: row for row in csv.DictReader(stream)}
    assert {name: row["like_clip_id"] for name, row in pairs.items()} == {"test-same": "meta-0", "val-copy": "train-3"}
    assert (pairs["test-same"]["same_bytes"], pairs["test-same"]["distance"]) == ("True", "0")
    assert (pairs["val-copy"]["same_bytes"], pairs["val-copy"]["like_video_id"]) == ("False", "video-of-train-3")
    assert "1 clips could not be decoded" in caplog.text


@pytest.mark.ray
def test_nothing_alike_is_told_too(ray_cluster, shards, tmp_path):
    job = DuplicatesJob(shards=str(shards), output=str(tmp_path / "pairs.csv"), learned=("meta",), measured=("val",))
    assert find_duplicates(job).startswith("none of 2 clips of val looks like one of meta")
    assert len((tmp_path / "pairs.csv").read_text().splitlines()) == 1


def test_a_split_is_not_both(shards, tmp_path):
    job = DuplicatesJob(shards=str(shards), output=str(tmp_path / "pairs.csv"), learned=("train", "val"))
    with pytest.raises(UserError, match="a split is learned from and measured on: got val"):
        find_duplicates(job)


def test_shards_without_an_index_are_told_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match="no index of clips"):
        find_duplicates(DuplicatesJob(shards=str(tmp_path), output=str(tmp_path / "runs" / "duplicates.csv")))
    assert list(tmp_path.iterdir()) == []
