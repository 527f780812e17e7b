"""An elastic group of train workers: a lost node costs no clip, repeats none and changes nothing that is learned."""

import json
import time

import numpy as np
import pytest

from mama_ray.config import ConfigError, parse_config
from mama_ray.data.batch import PADDING_ROW
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.orchestration.runs.batch_stream import decode_cpus, stream_arrays
from mama_ray.orchestration.runs.settings import WorkerRange
from mama_ray.orchestration.training.job import TrainJob
from tests.orchestration.captioning.captioning_runs import TwoNodes
from tests.orchestration.runs.training_runs import (
    NUM_STEPS,
    checkpoint,
    outcome,
    start_training,
    wait_until,
    write_shards,
)

# Neither batch divides by two workers; 180 of 96 clips are twelve steps.
UNEVEN = {
    "global_batch_size": 15,
    "num_epochs": 1.875,
    "meta": {"batch_size": 7, "meta_every": 1},
    "placement": {"worker_resources": {"train_slot": 1.0}},
}
ONE_SLOT = ['--resources={"train_slot": 1}']  # so that each node holds one worker


def workers_of(*words: str) -> WorkerRange:
    return parse_config(TrainJob, ["--num_workers", *words]).workers


def test_num_workers_is_a_number_or_a_range():
    assert workers_of("4") == WorkerRange(4, 4)
    assert workers_of("min", "1", "max", "4") == workers_of("{min: 1, max: 4}") == WorkerRange(1, 4)
    assert workers_of("min", "1", "max", "4").is_elastic and not workers_of("4").is_elastic


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--num_workers", "min", "3", "max", "2"], "min <= max"),
        (["--num_workers", "max", "2"], "wanted min and max"),
        (["--num_workers", "0"], "num_workers"),
        (["--num_workers", "min", "1", "max", "9", "--global_batch_size", "8"], "less than num_workers"),
        (["--num_workers", "min", "1", "max", "2", "--placement.worker_labels", "role", "train"], "worker_resources"),
        (["--placement.decode_labels", "role", "in()"], "in(a, b)"),
    ],
)
def test_a_group_that_cannot_be_is_refused(words, named):
    with pytest.raises(ConfigError) as caught:
        parse_config(TrainJob, words)
    assert named in str(caught.value)


class NumberReader:
    """Reader and assembler in one: the clips of a corpus of numbers."""

    def epoch_plan(self) -> EpochPlan:
        return EpochPlan([20], PlanConfig())

    def assembler(self) -> "NumberReader":
        return self

    def assemble(self, rows, epochs):
        return {"rows": rows, "valid": np.ones(len(rows), bool)}


@pytest.mark.ray
def test_workers_that_have_all_cpus_still_get_their_clips(ray_cluster):
    """As on what a lost node has left: a decode task that reserved a CPU would wait for ever."""
    num_cpus = ray_cluster.cluster_resources()["CPU"]
    group = ray_cluster.util.placement_group([{"CPU": num_cpus}])
    ray_cluster.get(group.ready(), timeout=120)
    sizes = {"first_step": 2, "num_steps": 5, "global_batch_size": 5, "world_size": 2}
    share = decode_cpus(num_cpus, 1)
    streams = [list(stream_arrays(NumberReader(), **sizes, rank=rank, num_decode_cpus=share)) for rank in range(2)]
    ray_cluster.util.remove_placement_group(group)
    for step, parts in enumerate(zip(*streams, strict=True), start=2):
        rows = np.concatenate([part["rows"] for part in parts])
        assert rows.tolist() == [*NumberReader().epoch_plan().global_batch(step, 5)[0], PADDING_ROW]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_training_goes_on_when_a_node_is_lost_as_if_nothing_had_happened(tmp_path, monkeypatch):
    shards = write_shards(tmp_path / "shards")
    cluster = TwoNodes(head_cpus=3, node_cpus=2, head_options=ONE_SLOT, node_options=ONE_SLOT)
    for name in ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, cluster.environment[name])
    try:
        # The elastic run comes first: what another run has just left may not be free yet, and it would start with less.
        for run, num_workers in (("elastic", {"min": 1, "max": 2}), ("undisturbed", 1)):
            process = start_training(tmp_path, shards, run, num_workers=num_workers, **UNEVEN)
            if run == "elastic":
                wait_until(checkpoint(tmp_path, run, 4).is_dir)
                num_working = [sum("RayTrainWorker" in title for title in titles) for titles in cluster.titles()]
                cluster.kill_node()
                lost_at = time.time()
                assert not checkpoint(tmp_path, run, NUM_STEPS).is_dir(), "it was lost too late to prove anything"
            assert process.wait(timeout=300) == 0, (tmp_path / f"{run}.log").read_text()[-3000:]
    finally:
        cluster.stop()
    assert num_working == [1, 1], (tmp_path / "elastic.log").read_text()[-3000:]
    ours, theirs = outcome(tmp_path, "elastic"), outcome(tmp_path, "undisturbed")
    assert ours["state"] == theirs["state"] == {"step": NUM_STEPS, "samples_seen": NUM_STEPS * 15}
    assert [step for step, *_ in ours["losses"]] == list(range(1, NUM_STEPS + 1))
    for mine, other in zip(ours["losses"], theirs["losses"], strict=True):
        assert mine == pytest.approx(other, rel=1e-4)
    records = [json.loads(line) for line in (tmp_path / "elastic" / "metrics.jsonl").read_text().splitlines()]
    assert {record["data/num_invalid"] for record in records if "train/loss" in record} == {0.0}
    assert max(record["time_s"] for record in records) > lost_at, "the run had ended before the loss was noticed"
