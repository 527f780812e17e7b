"""Exactly once: whatever is killed, however often, the table is that of an undisturbed run."""

import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.orchestration.features.feature_runs import encode, files_of, read_table, write_feature_shards, write_models
from tests.processes import descendants, title

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
NUM_CLIPS = 400  # in chunks of 16
FIVE = ["driver", "actor", "actor", "driver", "actor"]
SIZES = ["--num_clips", "4", "--frames_per_clip", "2", "--num_regions", "5", "--actors.number", "2"]


def test_a_table_survives_kills_of_driver_and_actors(tmp_path):
    shards = write_feature_shards(tmp_path / "shards", {f"clip-{seed:03d}": encode(seed) for seed in range(NUM_CLIPS)})
    models = write_models(tmp_path / "models")
    arguments = ["--shards", str(shards), *SIZES]
    for name, folder in models.items():
        arguments += [f"--{name}", folder]
    log = tmp_path / "jobs.log"
    whole = start(arguments, tmp_path / "whole", log)
    assert whole.wait(timeout=400) == 0, log.read_text()[-3000:]
    wanted = read_table(tmp_path / "whole")
    assert [row[0] for row in wanted] == list(range(NUM_CLIPS)) and not any(row[3] for row in wanted)

    output, rng, job = tmp_path / "killed", random.Random(0), None
    for kind in FIVE:
        committed = {path.name: path.stat().st_mtime_ns for path in files_of(output)}
        job = job or start(arguments, output, log)
        wait_for_a_moment(job, output, len(committed) + rng.randint(0, 1), rng)
        assert job.poll() is None, f"the job was over before a kill: {log.read_text()[-3000:]}"
        if kind == "driver":
            job.kill()
            job.wait()
            job = None
        else:
            kill_an_actor(job, rng)
        now = {path.name: path.stat().st_mtime_ns for path in files_of(output)}
        assert now.items() >= committed.items(), "a committed file was made again"
    job = job or start(arguments, output, log)
    assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert read_table(output) == wanted


def start(arguments: list[str], output: Path, log: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "jobs/features.py"), *arguments, "--output", str(output)]
    with log.open("ab") as stream:
        return subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)


def wait_for_a_moment(job: subprocess.Popen, output: Path, num_files: int, rng: random.Random) -> None:
    """Wait until more files than these are committed, then a random while of the next."""
    end = time.monotonic() + 600
    while job.poll() is None and len(files_of(output)) <= num_files and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.3))


def kill_an_actor(job: subprocess.Popen, rng: random.Random) -> None:
    """Kill one of the actors, as soon as one is alive: those that died before start anew."""
    end = time.monotonic() + 300
    while not (actors := actors_of(job)) and time.monotonic() < end:
        time.sleep(0.1)
    assert actors, "no actor is alive"
    rng.choice(actors).kill()


def actors_of(job: subprocess.Popen) -> list[psutil.Process]:
    return [process for process in descendants(job.pid) if "FeatureActor" in title(process)]
