"""Prepare against an S3 server of our own, and with every real clip that is at hand."""

import csv
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mama_ray.data.index import read_index
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard_check import check_shards
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.sampling import sample_timestamps
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video

NUM_FRAMES = 4


@pytest.mark.ray
@pytest.mark.slow
def test_prepare_from_s3_to_s3(tmp_path, s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    video = make_video(num_frames=8, width=48, height=48, fps=4)
    corpus = Place.of("s3://corpus")
    for bucket in ("corpus", "shards"):
        request = urllib.request.Request(f"{s3_server['AWS_ENDPOINT_URL']}/{bucket}", method="PUT")
        urllib.request.urlopen(request).close()
    lines = [{"video": f"v{number}.mp4", "caption": f"text {number}"} for number in range(7)]
    lines += [{"video": "gone.mp4"}, {"video": "v0.mp4", "start_s": 0.5, "end_s": 1.0}]
    files = {f"videos/v{number}.mp4": video for number in range(7)}
    files["a.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    for name, data in files.items():
        (corpus / name).write_whole(data)
    # A process and a Ray of its own: workers take the endpoint from the environment they were started with.
    arguments = ["--videos", "s3://corpus/videos", "--annotations", "s3://corpus/a.jsonl", "--output", "s3://shards/x"]
    command = [sys.executable, "jobs/prepare.py", *arguments, "--clips-per-shard", "3"]
    repository = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, cwd=repository, env={**os.environ, **s3_server}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        "8 clips in 3 shards, 1 without caption, 1 quarantined (1 no such video file; all of them in s3:"
    )
    folder = Place.of("s3://shards/x")
    table = read_index(folder)
    check_shards(folder, table)
    for row in table.to_pylist():
        place = (row["shard"], row["offset"], row["num_bytes"])
        data = read_clip_bytes(folder, *place, sha256=row["sha256"])
        assert VideoDecoder(data).num_frames == (2 if row["start_s"] else 8)
    again = subprocess.run(command, cwd=repository, env={**os.environ, **s3_server}, capture_output=True, text=True)
    assert again.stdout.splitlines()[-1].startswith("already prepared")


@pytest.mark.ray
def test_every_real_clip_is_prepared_and_decoded_or_has_a_reason(tmp_path, shared, ray_cluster):
    clips = shared / "data"
    with open(clips / "clips.csv", newline="") as file:
        table = list(csv.DictReader(file))
    rows = [
        {"video": row["file"], "video_id": f"clip{number}", "caption": row["caption"] or None}
        for number, row in enumerate(table)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = PrepareJob(
        videos=str(clips), annotations=str(tmp_path / "a.jsonl"), output=str(tmp_path / "out"), clips_per_shard=30
    )
    run(job)
    index = read_index(Place.of(tmp_path / "out"))
    reasons = pq.read_table(tmp_path / "out" / "quarantine.parquet")["reason"].to_pylist()
    assert len(index) + len(reasons) == len(rows)
    assert all(reasons)
    truth = {f"clip{number}": row for number, row in enumerate(table)}
    for row in index.to_pylist():
        place = (row["shard"], row["offset"], row["num_bytes"])
        data = read_clip_bytes(Place.of(tmp_path / "out"), *place, sha256=row["sha256"])
        decoder = VideoDecoder(data, width=64, height=64)
        frames = decoder.frames_at(sample_timestamps(decoder.duration_s, NUM_FRAMES, start_s=decoder.start_s))
        assert frames.shape == (NUM_FRAMES, 64, 64, 3)
        assert frames.dtype == np.uint8
        assert row["sha256"] == truth[row["video_id"]]["sha256"]
    assert len(index) >= 0.9 * len(rows)
