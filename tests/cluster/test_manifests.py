"""The launcher's file and the Kubernetes manifests are what Ray and KubeRay accept, and they agree with each other."""

import json
import re
import tomllib

import jsonschema
import pytest
from ray._private.label_utils import validate_label_key, validate_label_value
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.cluster_files import (
    GROUPS,
    ROOT,
    aws,
    cluster_specs,
    node_types,
    ray_cluster_manifest,
    ray_job_manifest,
    read,
)

SPECS = cluster_specs()
RAY_VERSION = next(
    found[1]
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    if (found := re.match(r"ray\[.*\]==([\d.]+)", line))
)
GIB = {"Gi": 1.0, "Mi": 1 / 1024}


def containers(spec: dict) -> list[dict]:
    templates = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    return [container for template in templates for container in template["spec"]["containers"]]


def templates_by_group(spec: dict) -> dict[str, dict]:
    workers = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **workers}


def gib(size: str) -> float:
    return float(size[:-2]) * GIB[size[-2:]]


def test_ray_accepts_the_launchers_file():
    config = prepare_config(aws())
    validate_config(config)
    assert config["head_node_type"] == "head"


@pytest.mark.parametrize(
    ("manifest", "schema"),
    [(ray_cluster_manifest(), "raycluster"), (ray_job_manifest(), "rayjob")],
    ids=["cluster", "job"],
)
def test_kuberay_accepts_the_manifests(shared, manifest, schema):
    path = shared / f"data/schemas/{schema}_v1.schema.json"
    jsonschema.validate(manifest, json.loads(path.read_text()))


def test_a_run_of_its_own_has_the_same_cluster_but_for_decode_nodes_that_are_there_at_its_start():
    shared, own = SPECS["raycluster.yaml"], SPECS["rayjob.yaml"]
    counts = [(group.pop("replicas"), group.pop("minReplicas")) for group in own["workerGroupSpecs"]]
    assert counts == [(1, 1), (0, 0), (0, 0)]
    assert [(group.pop("replicas"), group.pop("minReplicas")) for group in shared["workerGroupSpecs"]] == [(0, 0)] * 3
    assert own == shared


def test_both_ways_to_a_cluster_have_the_same_groups():
    types = node_types(ray_cluster_manifest()["spec"])
    launched = aws()["available_node_types"]
    assert set(types) == set(launched) == {"head", *GROUPS}
    for name, facts in launched.items():
        assert facts["labels"] == types[name]["labels"] == {"mama-ray/group": name}
        assert facts.get("max_workers", 0) == types[name]["max_workers"]
        for resource in (set(facts["resources"]) | set(types[name]["resources"])) - {"CPU", "memory"}:
            assert facts["resources"].get(resource) == types[name]["resources"].get(resource), resource


def test_labels_are_legal_for_ray_and_for_kubernetes_which_puts_them_on_pods():
    for facts in aws()["available_node_types"].values():
        for key, value in facts["labels"].items():
            assert validate_label_key(key) is None
            validate_label_value(value)
            assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", key.split("/")[0]), "an underscore is no DNS name"


def test_groups_start_empty_on_spot_nodes_and_the_head_is_on_demand():
    config = aws()
    launched = config["available_node_types"]
    assert config["max_workers"] == sum(launched[name]["max_workers"] for name in GROUPS)
    assert "InstanceMarketOptions" not in launched["head"]["node_config"]
    for name in GROUPS:
        assert launched[name]["min_workers"] == 0
        assert launched[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_pods_ask_for_what_they_may_use(spec):
    for container in containers(spec):
        assert container["resources"]["limits"] == container["resources"]["requests"]
    autoscaler = spec["autoscalerOptions"]["resources"]
    assert autoscaler["limits"] == autoscaler["requests"]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_gpus_and_their_taints_go_together_and_shared_memory_holds_the_object_store(spec):
    for name, pod in templates_by_group(spec).items():
        limits = pod["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (name in ("caption", "train"))
        assert ("tolerations" in pod) == ("nvidia.com/gpu" in limits)
        assert pod["restartPolicy"] == "Never"
        (volume,) = pod["volumes"]
        assert pod["containers"][0]["volumeMounts"] == [{"name": volume["name"], "mountPath": "/dev/shm"}]
        share = gib(volume["emptyDir"]["sizeLimit"]) / gib(limits["memory"])
        assert 0.3 <= share < 0.4, "Ray's object store takes 30 % of the memory"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_clusters_grow_by_the_autoscaler_that_knows_labels(spec):
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert "labels" not in spec["headGroupSpec"]["rayStartParams"]  # the autoscaler reads the group's own field alone


def test_ray_has_one_version_in_images_manifests_and_packages():
    assert {spec["rayVersion"] for spec in SPECS.values()} == {RAY_VERSION}
    images = {container["image"] for spec in SPECS.values() for container in containers(spec)} | {
        aws()["docker"]["image"]
    }
    images |= set(re.findall(r"ghcr\.io/\S+", read("Dockerfile") + read("README.md")))
    assert {re.search(r":[\d.]+-ray([\d.]+)-(?:cpu|gpu)$", image)[1] for image in images} == {RAY_VERSION}


def test_a_jobs_cluster_goes_when_the_job_is_done():
    spec = ray_job_manifest()["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["runtimeEnvYAML"].split() == ["working_dir:", "/app"]
    assert "WORKDIR /app" in read("Dockerfile")


@pytest.mark.parametrize("file", SPECS)
def test_the_disk_that_empty_node_groups_are_tagged_with_holds_every_pod(file):
    guide = (ROOT / "docs/quickstart_cluster.md").read_text()
    tagged, volume = (
        float(re.search(pattern, guide)[1]) for pattern in (r"ephemeral-storage,Value=(\d+)Gi", r"volume-size (\d+)")
    )
    asked = [container["resources"]["limits"]["ephemeral-storage"] for container in containers(SPECS[file])]
    assert all(float(amount.removesuffix("Gi")) <= tagged for amount in asked)
    assert tagged < 0.9 * volume  # what Kubernetes leaves of a disk for pods
