"""Where the parts of jobs run: labels of nodes are kept to, and what can never be placed is told."""

import logging
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from mama_ray.config import ConfigError, parse_config
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.job import CaptionJob, PoolConfig
from mama_ray.orchestration.captioning.pool import fit_pool
from mama_ray.orchestration.cluster.labels import matches
from mama_ray.orchestration.runs.batch_stream import decode_cpus
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from tests.orchestration.captioning.captioning_runs import TwoNodes, read_captions, write_caption_shards
from tests.orchestration.runs.training_runs import NUM_STEPS, SETTINGS, checkpoint, start_training, write_shards

CORPUS = CorpusConfig(num_train=200, num_meta=16, num_val=16, num_test=16)
ENGINE, WORKER, DECODING, DECODING_FOR_TRAINING = "(Captioning)", "RayTrainWorker", "(decode)", "(read_and_decode)"


@pytest.mark.parametrize(
    ("selector", "is_met"),
    [
        ({}, True),
        ({"role": "train"}, True),
        ({"role": "decode"}, False),
        ({"role": "train", "zone": "b"}, False),
        ({"zone": "!b"}, True),
        ({"missing": "x"}, False),
        ({"missing": "!x"}, True),
        ({"role": "in(decode, train)"}, True),
        ({"role": "!in(decode,train)"}, False),
    ],
)
def test_labels_meet_a_selector_as_ray_reads_it(selector, is_met):
    assert matches({"role": "train", "zone": "a"}, selector) == is_met


@pytest.mark.parametrize("words", [["role", "in()"], ["role", "a,b"], ["role", "!!a"]])
def test_a_condition_that_ray_could_not_read_is_refused(words):
    with pytest.raises(ConfigError, match="label of a node"):
        parse_config(CaptionJob, ["--pool.engine_labels", *words])


@pytest.mark.ray
def test_a_pool_that_no_node_of_this_machine_may_hold_is_refused(ray_cluster):
    for labels in ({"engine_labels": {"role": "accelerator"}}, {"decode_labels": {"role": "accelerator"}}):
        with pytest.raises(UserError, match="role=accelerator"):
            fit_pool(PoolConfig(**labels), is_cluster=False)
    everywhere = PoolConfig(engine_labels={"role": "!none"}, max_decode_tasks=1)
    assert fit_pool(everywhere, is_cluster=False) == everywhere
    with pytest.raises(UserError, match="5 CPU"):  # three engines of 1.5 and a task of 0.5 on the fixture's 4 CPUs
        fit_pool(PoolConfig(min_size=3, max_size=3, cpus_per_engine=1.5), is_cluster=False)


@pytest.mark.ray
def test_a_cluster_that_lacks_the_nodes_of_a_pool_may_grow(ray_cluster, caplog):
    with caplog.at_level(logging.WARNING, "mama_ray"):
        fit_pool(PoolConfig(engine_labels={"role": "accelerator"}), is_cluster=True)
    assert "role=accelerator" in caplog.text and "waiting for nodes" in caplog.text


@pytest.mark.ray
def test_train_workers_that_no_node_of_this_machine_may_hold_are_refused(ray_cluster, tmp_path):
    places = {"shards": str(write_shards(tmp_path / "shards")), "storage": str(tmp_path)}
    for placement in (
        {"worker_labels": {"role": "x"}},
        {"worker_resources": {"slot": 1}},
        {"decode_labels": {"a": "b"}},
    ):
        job = TrainJob.model_validate(SETTINGS | places | {"placement": placement})
        with pytest.raises(UserError, match="does not fit this machine"):
            train(job)


@pytest.mark.ray
def test_decoding_gets_the_cpus_that_workers_leave_on_its_nodes(ray_cluster):
    nowhere = {"role": "none"}
    assert decode_cpus(1.0, 2) == 1.0
    assert decode_cpus(2.0, 2) == 0.0  # the workers have all four
    assert decode_cpus(2.0, 2, worker_labels=nowhere) == 4.0  # two each, and Ray Data takes half of a limit
    assert decode_cpus(1.0, 2, decode_labels=nowhere) == 1.0  # for which a cluster that grows gets a node


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    cluster = TwoNodes(
        head_cpus=2, node_cpus=2, head_options=["--labels=role=cpu"], node_options=["--labels=role=accelerator"]
    )
    yield cluster
    cluster.stop()


def seen_while(cluster: TwoNodes, job: subprocess.Popen, log: Callable[[], str]) -> list[set[str]]:
    """Titles of the processes on each node over the life of a job, which ends well."""
    seen: list[set[str]] = [set(), set()]
    while job.poll() is None:
        for known, titles in zip(seen, cluster.titles(), strict=True):
            known |= titles
        time.sleep(0.05)
    assert job.returncode == 0, log()[-3000:]
    return seen


def nodes_of(title: str, seen: list[set[str]]) -> list[bool]:
    """Whether a process with this in its title was on the head, and on the other node."""
    return [any(title in one for one in titles) for titles in seen]


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.promise
def test_engines_and_decoding_stay_on_the_nodes_with_their_labels(nodes, tmp_path):
    shards, log = write_caption_shards(tmp_path / "shards", CORPUS), tmp_path / "job.log"
    places = ["--shards", str(shards), "--output", str(tmp_path / "table")]
    labels = ["--pool.engine_labels", "role", "accelerator", "--pool.decode_labels", "role", "cpu"]
    job = nodes.start_captioning(*places, *labels, log=log)
    seen = seen_while(nodes, job, log.read_text)
    assert nodes_of(ENGINE, seen) == [False, True]
    assert nodes_of(DECODING, seen) == [True, False]
    assert len(read_captions(tmp_path / "table")) == sum(CORPUS.num_clips.values())


@pytest.mark.ray
@pytest.mark.slow
def test_train_workers_and_decoding_stay_on_the_nodes_with_their_labels(nodes, tmp_path, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, nodes.environment[name])
    placement = {"worker_labels": {"role": "accelerator"}, "decode_labels": {"role": "cpu"}}
    shards = write_shards(tmp_path / "shards")
    job = start_training(tmp_path, shards, "placed", num_workers=2, placement=placement)
    seen = seen_while(nodes, job, (tmp_path / "placed.log").read_text)
    assert nodes_of(WORKER, seen) == [False, True]
    assert nodes_of(DECODING_FOR_TRAINING, seen) == [True, False]
    assert checkpoint(tmp_path, "placed", NUM_STEPS).is_dir()
