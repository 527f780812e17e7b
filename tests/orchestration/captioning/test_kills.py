"""Exactly once: whatever is killed, however often, the table is that of an undisturbed run."""

import random
from pathlib import Path

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from tests.orchestration.captioning.captioning_runs import TwoNodes, read_captions, write_caption_shards
from tests.orchestration.captioning.kills import caption_under_fire

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

CORPUS = CorpusConfig(num_train=400, num_meta=16, num_val=100, num_test=84)
TWENTY = {"driver": 8, "engine": 6, "node": 6}
THREE = {"driver": 1, "engine": 1, "node": 1}  # as often as there is time for at every change
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
        caption_under_fire(nodes, ["--shards", str(shards), *POOL], output, pending, rng, log)
        assert read_captions(output) == whole, f"{output.name} differs; kills left: {pending}"
    assert num_tables > 1 or kills is THREE
