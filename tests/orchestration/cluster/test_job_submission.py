"""`ray job submit` against a real local head: the same command, the same outputs, a readable last line on failure."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.manifest import step_directory
from tests import processes
from tests.orchestration.runs.training_runs import (
    NUM_STEPS,
    ROOT,
    SETTINGS,
    checkpoint,
    outcome,
    wait_until,
    write_shards,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

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
    environment = os.environ | {"PATH": path, "RAY_JOB_STOP_WAIT_TIME_S": "15"}
    dashboard = free_port()
    command = [RAY, "start", "--head", "--port", str(free_port()), "--dashboard-port", str(dashboard)]
    # Its agent takes the jobs, and none are taken where an agent of another Ray still holds the usual port.
    command += ["--dashboard-agent-listen-port", str(free_port())]
    command += ["--num-cpus", "4", "--temp-dir", folder, "--disable-usage-stats", "--object-store-memory", "268435456"]
    subprocess.run(command, check=True, env=environment, timeout=180, capture_output=True)
    yield f"http://127.0.0.1:{dashboard}", environment
    for process in psutil.process_iter(["cmdline"]):
        if folder in " ".join(process.info["cmdline"] or []):
            processes.kill_all([process])
    shutil.rmtree(folder, ignore_errors=True)


def submit(
    head: tuple[str, dict[str, str]], *arguments: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    return ray_job(head, "submit", "--working-dir", str(ROOT), *options, "--", "python", *arguments)


def ray_job(head: tuple[str, dict[str, str]], verb: str, *arguments: str) -> subprocess.CompletedProcess:
    address, environment = head
    command = [RAY, "job", verb, "--address", address, *arguments]
    for _ in range(30):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
        if "No available agent" not in done.stderr:  # a head takes jobs some seconds after it has started
            break
        time.sleep(1)
    return done


def last_line(done: subprocess.CompletedProcess) -> str:
    """Return the last line that the job itself wrote; `ray job submit` frames and times its own."""
    own = re.compile(r"\W*$|\d{4}-\d\d-\d\d \S+\s+(INFO|SUCC|WARN)\b|.*Job 'raysubmit_\w+' succeeded")
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in done.stdout.splitlines()]
    return [line for line in lines if not own.match(line)][-1]


@pytest.mark.promise
def test_a_submitted_training_job_ends_like_a_local_one(head, tmp_path):
    shards = write_shards(tmp_path / "shards")
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | {"shards": str(shards), "storage": str(tmp_path), "run": "submitted"}))
    done = submit(head, "jobs/train.py", str(config))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"trained {NUM_STEPS} steps" in done.stdout
    assert outcome(tmp_path, "submitted")["state"] == {"step": NUM_STEPS, "samples_seen": NUM_STEPS * 16}


@pytest.mark.promise
def test_a_submitted_job_that_fails_ends_with_one_readable_line(head, tmp_path):
    failed = submit(head, "jobs/train.py", "--shards", str(tmp_path / "nowhere"), "--storage", str(tmp_path / "runs"))
    assert failed.returncode == 1
    # A set: when a job fails, `ray job submit` prints the end of its log a second time.
    told = {line for line in failed.stdout.splitlines() if line.startswith("error: ")}
    assert len(told) == 1
    assert "nowhere" in told.pop()


def test_a_relative_output_of_a_submitted_job_is_refused(head, tmp_path):
    shards = write_shards(tmp_path / "shards")
    refused = submit(head, "jobs/train.py", "--shards", str(shards), "--storage", "runs", "--run", "lost")
    assert refused.returncode == 1
    assert "error: a relative path of a submitted job would be lost with it: got runs/lost" in refused.stdout


@pytest.mark.promise
def test_a_stopped_job_leaves_a_run_that_goes_on_when_it_is_submitted_again(head, tmp_path):
    shards = write_shards(tmp_path / "shards")
    settings = SETTINGS | {"shards": str(shards), "storage": str(tmp_path), "run": "stopped", "num_workers": 1}
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(settings | {"num_epochs": 20.0}))  # it must last until it is stopped
    started = submit(head, "jobs/train.py", str(config), options=("--no-wait", "--submission-id", "first-start"))
    assert started.returncode == 0, started.stderr[-3000:]
    wait_until(lambda: (checkpoint(tmp_path, "stopped", 4) / "manifest.json").is_file())
    stopped = ray_job(head, "stop", "first-start")
    assert stopped.returncode == 0, stopped.stderr[-3000:]
    assert "was stopped" in ray_job(head, "status", "first-start").stdout
    log = ray_job(head, "logs", "first-start").stdout
    assert "stopped by SIGTERM; started again with the same arguments" in log
    done_before = [path.name for path in (tmp_path / "stopped" / "checkpoints").glob("step_*")]
    assert step_directory(120) not in done_before, "it was stopped too late to prove anything"

    done = submit(head, "jobs/train.py", str(config))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "resumed at step" in done.stdout
    assert last_line(done).endswith(str(tmp_path / "stopped")), "the last line is the link to the run"
    records = read_metrics(Place.of(tmp_path / "stopped"))
    assert [record["step"] for record in records if "train/loss" in record] == list(range(1, 121))


def test_captioning_and_a_sweep_are_submitted_like_training(head, tmp_path):
    shards = write_shards(tmp_path / "shards")
    table = tmp_path / "captions"
    captioned = submit(head, "jobs/caption.py", "--shards", str(shards), "--output", str(table))
    assert captioned.returncode == 0, captioned.stdout[-3000:]
    assert str(table) in last_line(captioned)
    train = SETTINGS | {"shards": str(shards), "num_workers": 1, "num_epochs": 0.5}
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump({"storage": str(tmp_path), "train": train, "num_samples": 2, "max_concurrent": 1}))
    swept = submit(head, "jobs/tune.py", str(config))
    assert swept.returncode == 0, swept.stdout[-3000:]
    assert "2 trials (2 complete)" in last_line(swept), swept.stdout
    assert (tmp_path / "sweep" / "best.yaml").is_file()
