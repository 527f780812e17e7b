"""A storage that fails in the midst of a job is no fact about its clips: the job ends with one line, and goes on when
the storage answers again, to the result of an undisturbed one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from mama_ray.data.index import read_index
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video
from tests.orchestration.runs.training_runs import CORPUS, ROOT, outcome, write_shards

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_VIDEOS = 16


@pytest.fixture
def bucket(s3_bucket, tmp_path) -> Place:
    bucket = Place.of(f"s3://{s3_bucket}")
    shards = write_shards(tmp_path / "shards")
    pafs.copy_files(str(shards), f"{s3_bucket}/shards", destination_filesystem=bucket.filesystem)
    lines = [{"video": f"v{number}.mp4", "caption": f"text {number}"} for number in range(NUM_VIDEOS)]
    for number in range(NUM_VIDEOS):
        (bucket / f"videos/v{number}.mp4").write_whole(make_video(num_frames=4 + number, width=48, height=48, fps=4))
    (bucket / "annotations.jsonl").write_whole("".join(json.dumps(line) + "\n" for line in lines))
    return bucket


def run_jobs(name: str, bucket: Place, s3_server: dict[str, str], tmp_path: Path) -> dict:
    results = tmp_path / "results.json"
    arguments = [s3_server["AWS_ENDPOINT_URL"], bucket.path, str(results), name]
    command = [sys.executable, "-m", "tests.orchestration.outages", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(results.read_text())
    for job, told in found["told"].items():
        if isinstance(told, int):
            assert told > 0, job  # requests were refused
            continue
        assert told.startswith(("UserError: ", "StorageError: ")) and "start again with the same arguments" in told
    return found


@pytest.mark.promise
def test_prepare_ends_with_one_line_and_goes_on(bucket, s3_server, tmp_path):
    found = run_jobs("prepare", bucket, s3_server, tmp_path)
    told = found["told"]["prepare"]
    assert "the storage refuses access" in told and "AWS_PROFILE" in told
    assert found["prepare"].startswith(f"{NUM_VIDEOS} clips")
    assert len(read_index(bucket / "prepared")) == NUM_VIDEOS


def test_train_and_evaluate_end_with_one_line_and_go_on_to_the_undisturbed_result(bucket, s3_server, tmp_path):
    found = run_jobs("train", bucket, s3_server, tmp_path)
    told = found["told"]
    assert "the storage refuses access" in told["train"] and "AWS_PROFILE" in told["train"]
    assert f"a file of the storage is missing: got {bucket}/shards/clips-00000" in told["evaluate"]
    assert found["evaluate"] == {"num_missing": 0, "num_videos": CORPUS.num_test}
    outcomes = {run: outcome_of(bucket, run, tmp_path) for run in ("whole", "cut")}
    assert outcomes["cut"] == outcomes["whole"]


def outcome_of(bucket: Place, run: str, folder: Path) -> dict:
    pafs.copy_files(f"{bucket.path}/runs/{run}", str(folder / run), source_filesystem=bucket.filesystem)
    return outcome(folder, run)
