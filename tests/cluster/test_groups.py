"""The jobs' configs for a cluster name its groups as the cluster's files do, and fill them."""

from typing import Any

import pytest

from mama_ray.config import load_config, load_yaml
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.training.job import TrainJob
from tests.cluster.cluster_files import GROUPS, ROOT, aws

CONFIGS = ROOT / "configs"


@pytest.fixture(scope="module")
def caption_job() -> CaptionJob:
    return load_config(CaptionJob, CONFIGS / "caption/cluster.yaml")


@pytest.fixture(scope="module")
def train_job() -> TrainJob:
    return load_config(TrainJob, CONFIGS / "train/cluster.yaml")


def groups_with(labels: dict[str, str], resources: dict[str, float] | None = None) -> list[str]:
    """Return the groups whose nodes have the labels and at least the resources."""
    return [
        name
        for name, facts in aws()["available_node_types"].items()
        if labels.items() <= facts["labels"].items()
        and all(facts["resources"].get(resource, 0) >= amount for resource, amount in (resources or {}).items())
    ]


def test_every_part_of_a_job_goes_to_one_group_and_every_group_has_its_part(caption_job, train_job):
    pool, placement = caption_job.pool, train_job.placement
    placed = [
        groups_with(pool.engine_labels, {"CPU": pool.cpus_per_engine, "GPU": pool.gpus_per_engine}),
        groups_with(pool.decode_labels, {"CPU": pool.decode_cpus}),
        groups_with(placement.worker_labels, {"GPU": 1, **placement.worker_resources}),
        groups_with(placement.decode_labels, {"CPU": 1}),
    ]
    assert placed == [["caption"], ["decode"], ["train"], ["decode"]]
    assert {name for names in placed for name in names} == set(GROUPS)


def test_the_largest_pool_and_the_largest_group_of_workers_fill_their_groups(caption_job, train_job):
    launched = aws()["available_node_types"]
    gpus = {name: launched[name]["max_workers"] * launched[name]["resources"]["GPU"] for name in ("caption", "train")}
    assert caption_job.pool.max_size * caption_job.pool.gpus_per_engine == gpus["caption"]
    assert train_job.workers.max == gpus["train"]
    assert launched["train"]["resources"]["train_slot"] == launched["train"]["resources"]["GPU"]


@pytest.mark.parametrize(
    ("ours", "model", "may_differ"),
    [
        ("caption/cluster.yaml", "caption/mama.yaml", {"engine", "pool"}),
        (
            "train/cluster.yaml",
            "train/base_32.yaml",
            {"global_batch_size", "num_workers", "max_failures", "checkpoint_every", "placement"},
        ),
    ],
)
def test_a_config_for_the_cluster_is_the_plain_one_but_for_sizes_and_places(ours, model, may_differ):
    def without_places(name: str) -> dict[str, Any]:
        values = load_yaml((CONFIGS / name).read_text(), source=name)
        return {key: value for key, value in values.items() if key not in may_differ}

    assert without_places(ours) == without_places(model)
