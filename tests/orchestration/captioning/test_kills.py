"""Exactly once: whatever is killed, however often, the table is that of an undisturbed run."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from tests.orchestration.captioning.captioning_runs import TwoNodes, parts_of, read_captions, write_caption_shards

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

CORPUS = CorpusConfig(num_train=400, num_meta=16, num_val=100, num_test=84)
TWENTY = {"driver": 8, "engine": 6, "node": 6}
THREE = {"driver": 1, "engine": 1, "node": 1}  # as often as there is time for at every change
LONGEST_START_S = 12.0  # while no engine has written anything
POOL = ["--pool.min_size", "1", "--pool.max_size", "2"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_caption_shards(tmp_path_factory.mktemp("corpus") / "shards", CORPUS)


@pytest.fixture
def nodes():
    cluster = TwoNodes(head_cpus=2, node_cpus=3)
    yield cluster
    cluster.stop()


@pytest.mark.parametrize(
    "kills", [pytest.param(THREE, marks=pytest.mark.promise, id="3"), pytest.param(TWENTY, id="20")]
)
def test_a_table_survives_kills_of_driver_engine_and_node(kills, shards, nodes, tmp_path):
    log = tmp_path / "jobs.log"
    job = nodes.start_captioning("--shards", str(shards), "--output", str(tmp_path / "whole"), *POOL, log=log)
    assert job.wait(timeout=300) == 0, log.read_text()[-3000:]
    whole = read_captions(tmp_path / "whole")
    assert len(whole) == len({row[:2] for row in whole}) == sum(CORPUS.num_clips.values())
    rng = random.Random(0)
    pending = [kind for kind, count in kills.items() for _ in range(count)]
    rng.shuffle(pending)
    num_tables = 0
    while pending:
        output = tmp_path / f"killed-{num_tables}"
        num_tables += 1
        caption_under_fire(nodes, shards, output, pending, rng, log)
        assert read_captions(output) == whole, f"{output.name} differs; kills left: {pending}"
    assert num_tables > 1 or kills is THREE


def caption_under_fire(nodes: TwoNodes, shards: Path, output: Path, pending: list[str], rng, log: Path) -> None:
    """Caption into `output`, killing at random moments what comes next in `pending`, until the table is whole."""
    job, committed = None, set()
    while True:
        if job is None:
            assert parts_of(output) >= committed, "committed parts are gone"
            job = nodes.start_captioning("--shards", str(shards), "--output", str(output), *POOL, log=log)
        status = wait_for_a_moment(job, output, rng) if pending else job.wait(timeout=300)
        if status is not None:
            assert status == 0, log.read_text()[-3000:]
            return
        committed = parts_of(output)
        match pending[-1]:
            case "driver":
                job.kill()
                job.wait()
                job = None
            case "engine":
                engines = nodes.engines()
                if not engines:
                    continue  # none has started yet: another moment
                rng.choice(engines).kill()
            case "node":
                nodes.kill_node()
                nodes.add_node()
        pending.pop()


def wait_for_a_moment(job: subprocess.Popen, output: Path, rng: random.Random) -> int | None:
    """Wait until a few more parts are committed, or, one time in four, a moment of the start; status if the job ends.

    In parts, not in seconds: so the moments lie all over a run on a slow machine as on a fast one.
    """
    is_early = rng.random() < 0.25
    wanted = len(parts_of(output)) + rng.randint(0, 4)
    end = time.monotonic() + (rng.uniform(0.5, LONGEST_START_S) if is_early else 300)
    while time.monotonic() < end and (is_early or len(parts_of(output)) <= wanted):
        if job.poll() is not None:
            return job.returncode
        time.sleep(0.05)
    return job.poll()
