"""Captioning on an autoscaled cluster: nodes come for the engines and go again, and one that is lost is replaced."""

import subprocess
import sys
import time

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from tests.orchestration.captioning.captioning_runs import ROOT, read_captions, write_caption_shards
from tests.orchestration.cluster.simulated_cluster import SimulatedCluster

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

CORPUS = CorpusConfig(num_train=1200, num_meta=16, num_val=16, num_test=16)
NUM_NODES = 4  # the head, which has no engine, and those that come and go
# One caption at a time: the clips queue up for as long as nodes take to come.
SLOW_ENGINE = ["--engine.max_num_seqs", "1", "--sampling.min_tokens", "64", "--pool.resources", "caption_slot", "1"]


@pytest.fixture
def cluster():
    simulated = SimulatedCluster(max_nodes=NUM_NODES - 1, head_cpus=2, node_cpus=1)
    yield simulated
    simulated.stop()


def test_nodes_come_for_engines_and_go_again_and_a_lost_one_is_replaced(cluster, tmp_path, request):
    shards = write_caption_shards(tmp_path / "shards", CORPUS)
    command = [sys.executable, str(ROOT / "jobs/caption.py"), "--shards", str(shards)]
    command += ["--output", str(tmp_path / "table"), *SLOW_ENGINE]
    # All asked for at once: a pool on two busy cores grows too slowly for what these clips take.
    command += ["--pool.initial_size", str(NUM_NODES - 1), "--pool.max_size", str(NUM_NODES - 1)]
    log = tmp_path / "job.log"
    with log.open("wb") as stream:
        options = {"stdout": stream, "stderr": subprocess.STDOUT, "env": cluster.environment}
        job = subprocess.Popen(command, cwd=ROOT, **options)
    request.addfinalizer(job.kill)
    numbers, victim, replaced = [1], None, False
    while job.poll() is None:
        raylets = cluster.node_raylets()
        if 1 + len(raylets) != numbers[-1]:
            numbers.append(1 + len(raylets))
        if victim is None and 1 + len(raylets) == NUM_NODES:
            time.sleep(3)  # it is at work by now
            victim = raylets[0]
            victim.kill()
        elif victim is not None:
            replaced |= 1 + len(raylets) == NUM_NODES
        time.sleep(0.25)
    assert job.returncode == 0, log.read_text()[-3000:]
    assert max(numbers) == NUM_NODES, f"nodes over time: {numbers}"
    assert victim is not None
    assert replaced, f"the lost node was not replaced: {numbers}"
    rows = read_captions(tmp_path / "table")
    assert len(rows) == len({row[:2] for row in rows}) == sum(CORPUS.num_clips.values())
    assert not any(error for *_, error in rows)
    wait_until_idle(cluster)


def wait_until_idle(cluster: SimulatedCluster) -> None:
    end = time.monotonic() + 90
    while cluster.node_raylets():
        assert time.monotonic() < end, "the nodes stayed although nothing runs"
        time.sleep(0.5)
