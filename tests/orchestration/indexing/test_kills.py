"""Exactly once: whatever is killed, the index is that of an undisturbed run."""

import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.encoder.tiny_encoder import write_model
from tests.orchestration.indexing.index_runs import clip_of, parts_of, rows_of, write_shards
from tests.processes import descendants, title

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.promise]

ROOT = Path(__file__).resolve().parents[3]
NUM_CLIPS = 240  # in parts of 8


def test_an_index_survives_kills_of_driver_and_actors(tmp_path):
    samples = [clip_of(number, is_broken=number % 50 == 49) for number in range(NUM_CLIPS)]
    shards = write_shards(tmp_path / "shards", [samples[:100], samples[100:]])
    model, log = write_model(tmp_path / "model"), tmp_path / "jobs.log"
    whole = start(shards, model, tmp_path / "whole", log)
    assert whole.wait(timeout=400) == 0, log.read_text()[-3000:]
    wanted = rows_of(tmp_path / "whole")
    assert list(wanted) == [clip.clip_id for clip, *_ in samples]

    output, rng, job = tmp_path / "killed", random.Random(0), None
    for kind in ("driver", "actor", "driver"):
        committed = parts_of(output)
        job = job or start(shards, model, output, log)
        wait_for_a_moment(job, output, len(committed), rng)
        assert job.poll() is None, f"the job was over before a kill: {log.read_text()[-3000:]}"
        if kind == "driver":
            job.kill()
            job.wait()
            job = None
        else:
            kill_an_actor(job, rng)
        assert parts_of(output).items() >= committed.items(), "a committed part was made again"
    job = start(shards, model, output, log)
    assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert rows_of(output) == wanted
    assert parts_of(output).keys() == parts_of(tmp_path / "whole").keys()


def start(shards: Path, model: Path, output: Path, log: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "jobs/index.py"), "--shards", str(shards), "--model", str(model)]
    command += ["--output", str(output), "--part_clips", "8", "--actors.max_number", "2", "--batch_size", "4"]
    with log.open("ab") as stream:
        return subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)


def wait_for_a_moment(job: subprocess.Popen, output: Path, num_parts: int, rng: random.Random) -> None:
    """Wait until more parts than these are committed, then a random while of the next."""
    end = time.monotonic() + 300
    while job.poll() is None and len(parts_of(output)) <= num_parts and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.2))


def kill_an_actor(job: subprocess.Popen, rng: random.Random) -> None:
    """Kill one of the actors, as soon as one is alive."""
    end = time.monotonic() + 120
    while not (actors := actors_of(job)) and time.monotonic() < end:
        time.sleep(0.1)
    assert actors, "no actor is alive"
    rng.choice(actors).kill()


def actors_of(job: subprocess.Popen) -> list[psutil.Process]:
    return [process for process in descendants(job.pid) if "MapWorker(MapBatches(IndexActor" in title(process)]
