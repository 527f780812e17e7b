"""`ray job submit` against a real local head: the same command, the same outputs, a readable last line on failure."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.orchestration.training_runs import NUM_STEPS, ROOT, SETTINGS, outcome, write_shards

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.promise]

RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """A head started as a user would, in its own folder; only its own processes are ended."""
    folder = tempfile.mkdtemp(prefix="mr-head-", dir="/tmp")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PATH": path}
    dashboard = free_port()
    command = [RAY, "start", "--head", "--port", str(free_port()), "--dashboard-port", str(dashboard)]
    command += ["--num-cpus", "4", "--temp-dir", folder, "--disable-usage-stats", "--object-store-memory", "268435456"]
    subprocess.run(command, check=True, env=environment, timeout=180, capture_output=True)
    yield f"http://127.0.0.1:{dashboard}", environment
    for process in psutil.process_iter(["cmdline"]):
        if folder in " ".join(process.info["cmdline"] or []):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def submit(head: tuple[str, dict[str, str]], *arguments: str) -> subprocess.CompletedProcess:
    address, environment = head
    command = [RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--", "python", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


def test_a_submitted_training_job_ends_like_a_local_one(head, tmp_path):
    shards = write_shards(tmp_path / "shards")
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | {"shards": str(shards), "storage": str(tmp_path), "run": "submitted"}))
    done = submit(head, "jobs/train.py", str(config))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"trained {NUM_STEPS} steps" in done.stdout
    assert outcome(tmp_path, "submitted")["state"] == {"step": NUM_STEPS, "samples_seen": NUM_STEPS * 16}


def test_a_submitted_job_that_fails_ends_with_one_readable_line(head, tmp_path):
    failed = submit(head, "jobs/train.py", "--shards", str(tmp_path / "nowhere"), "--storage", str(tmp_path / "runs"))
    assert failed.returncode == 1
    # A set: when a job fails, `ray job submit` prints the end of its log a second time.
    told = {line for line in failed.stdout.splitlines() if line.startswith("error: ")}
    assert len(told) == 1
    assert "nowhere" in told.pop()
