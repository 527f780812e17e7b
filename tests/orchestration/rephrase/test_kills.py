"""Exactly once: whatever is killed, the table of paraphrases is that of an undisturbed run."""

import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.orchestration.rephrase.rephrase_runs import (
    SMALL,
    grammar_captions,
    rows_of,
    write_captioned_shards,
    write_random_t5,
)
from tests.processes import descendants, title

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
NUM_CLIPS = 640  # twenty chunks
KILLS = ["driver", "engine", "driver", "engine", "engine"]
CASES = [pytest.param(KILLS, id="5"), pytest.param(KILLS[:2], id="2")]
POOL = ["--pool.min_size", "1", "--pool.max_size", "2"]
SAMPLED = ["--decoding.method", "sampling", "--decoding.num_samples", "4", "--decoding.temperature", "2.0"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    shards = write_captioned_shards(folder / "shards", grammar_captions(NUM_CLIPS))
    return ["--shards", str(shards), "--model", str(write_random_t5(folder / "t5")), *SMALL, *SAMPLED, *POOL]


@pytest.mark.parametrize("kills", CASES)
def test_a_table_survives_kills_of_driver_and_engines(inputs, kills, tmp_path):
    log = tmp_path / "jobs.log"
    whole = start(inputs, tmp_path / "whole", log)
    assert whole.wait(timeout=300) == 0, log.read_text()[-3000:]
    wanted = rows_of(tmp_path / "whole")
    assert len(wanted) == 3 * NUM_CLIPS and sum(row["caption"] is not None for row in wanted) > NUM_CLIPS
    output, rng, job = tmp_path / "killed", random.Random(0), None
    for kind in kills:
        committed = parts_of(output)
        job = job or start(inputs, output, log)
        wait_for_a_moment(job, output, len(committed) + rng.randint(0, 1), rng)
        assert job.poll() is None, f"the job was over before a kill: {log.read_text()[-3000:]}"
        if kind == "driver":
            job.kill()
            job.wait()
            job = None
        else:
            kill_an_engine(job, rng)
        assert parts_of(output).items() >= committed.items(), "what was committed was written again"
    job = job or start(inputs, output, log)
    assert job.wait(timeout=300) == 0, log.read_text()[-3000:]
    found = rows_of(output)
    assert [told(row) for row in found] == [told(row) for row in wanted]
    # Clips that went alone after an engine's death were in batches of another size, in which kernels round differently.
    logprobs = [[row["mean_logprob"] for row in rows if row["caption"]] for rows in (found, wanted)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-3)


def told(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "mean_logprob"}


def start(arguments: list[str], output: Path, log: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "jobs/rephrase.py"), *arguments, "--output", str(output)]
    with log.open("ab") as stream:
        return subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)


def parts_of(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / ".captioning/parts").rglob("*-*.parquet")}


def wait_for_a_moment(job: subprocess.Popen, output: Path, num_parts: int, rng: random.Random) -> None:
    """Wait until more parts than these are committed, then a random while of the next."""
    end = time.monotonic() + 300
    while job.poll() is None and len(parts_of(output)) <= num_parts and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.2))


def kill_an_engine(job: subprocess.Popen, rng: random.Random) -> None:
    """Kill an engine's process, as soon as one is alive: those that died before start anew."""
    end = time.monotonic() + 200
    while not (engines := engines_of(job)) and time.monotonic() < end:
        time.sleep(0.1)
    assert engines, "no engine is alive"
    rng.choice(engines).kill()


def engines_of(job: subprocess.Popen) -> list[psutil.Process]:
    return [process for process in descendants(job.pid) if "Rephrasing" in title(process)]
