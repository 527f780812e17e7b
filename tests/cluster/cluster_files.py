"""The files of cluster/, read once: what the tests of this folder have in common."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
GROUPS = ("decode", "caption", "train")


def read(name: str) -> str:
    return (CLUSTER / name).read_text()


def aws() -> dict[str, Any]:
    return yaml.safe_load(read("aws.yaml"))


def ray_cluster_manifest() -> dict[str, Any]:
    return yaml.safe_load(read("raycluster.yaml"))


def ray_job_manifest() -> dict[str, Any]:
    return yaml.safe_load(read("rayjob.yaml"))


def cluster_specs() -> dict[str, dict[str, Any]]:
    """Return the spec of the cluster of each manifest, by file name."""
    return {
        "raycluster.yaml": ray_cluster_manifest()["spec"],
        "rayjob.yaml": ray_job_manifest()["spec"]["rayClusterSpec"],
    }


def node_types(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what Ray's own autoscaler takes from a manifest: labels and resources of each group's nodes."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    manifest = {"metadata": {"name": "mama-ray", "namespace": "default"}, "spec": spec}
    found = _derive_autoscaling_config_from_ray_cr(manifest)["available_node_types"]
    return {"head" if name == "headgroup" else name: facts for name, facts in found.items()}
