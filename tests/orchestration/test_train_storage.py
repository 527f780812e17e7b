"""Training whose shards and storage are S3's: the same promises as on a disk."""

import json
import subprocess
import sys
import urllib.request

import pyarrow.fs as pafs
import pytest

from mama_ray.orchestration.storage import filesystem_for
from mama_ray.training.checkpoint import step_directory
from tests.orchestration.training_runs import NUM_STEPS, ROOT, kill_all, start_training, wait_until, write_shards


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_a_run_on_s3_goes_on_after_a_kill_and_is_evaluated_there(tmp_path, s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    filesystem, _ = filesystem_for("s3://bucket")
    request = urllib.request.Request(f"{s3_server['AWS_ENDPOINT_URL']}/bucket", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    local = str(write_shards(tmp_path / "shards"))
    pafs.copy_files(local, "bucket/shards", destination_filesystem=filesystem)

    def exists(path: str) -> bool:
        return filesystem.get_file_info(f"bucket/runs/cloud/{path}").is_file

    settings = {"storage": "s3://bucket/runs", "num_workers": 1}
    process = start_training(tmp_path, "s3://bucket/shards", "cloud", **settings)
    wait_until(lambda: exists(f"checkpoints/{step_directory(4)}/manifest.json"))
    kill_all(process)
    assert not exists(f"checkpoints/{step_directory(NUM_STEPS)}/manifest.json"), "killed too late to prove anything"
    process = start_training(tmp_path, "s3://bucket/shards", "cloud", **settings)
    log = tmp_path / "cloud.log"
    assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert "resumed at step" in log.read_text()
    assert log.read_text().splitlines()[-1].endswith("s3://bucket/runs/cloud")
    with filesystem.open_input_stream("bucket/runs/cloud/metrics.jsonl") as stream:
        records = [json.loads(line) for line in stream.read().splitlines()]
    assert [record["step"] for record in records if "train/loss" in record] == list(range(NUM_STEPS))

    command = [sys.executable, "jobs/evaluate.py", "--checkpoint", "s3://bucket/runs/cloud", "--benchmark", "embedded"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert exists("evaluation/embedded.json")
    assert exists("report/index.html")
    secrets = [log.read_text(), done.stdout, done.stderr]
    assert not any(s3_server["AWS_SECRET_ACCESS_KEY"] in text for text in secrets)
