"""Ray's autoscaler brings a node of the group that a part of a job asks for: real raylets, the labels of aws.yaml."""

import json
import subprocess
import sys

import pytest

from tests.cluster.cluster_files import GROUPS, ROOT, aws
from tests.orchestration.cluster import simulated_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.promise]

_CPUS = 4  # of a simulated node: enough for one part of a job, and few processes

# Asks as the jobs do: a task of a job without labels, captioning's engines and decode tasks, a train worker.
PROGRAM = """
import json, ray
from mama_ray.config import load_config
from mama_ray.orchestration.captioning.run import CaptionJob
from mama_ray.orchestration.training.run import TrainJob
from mama_ray.orchestration.runs.worker_group import resources_of_worker

ray.init(log_to_driver=False)
pool = load_config(CaptionJob, "configs/caption/cluster.yaml").pool
job = load_config(TrainJob, "configs/train/cluster.yaml")
worker = resources_of_worker(job, job.placement)

@ray.remote
def group():
    return ray.get_runtime_context().get_node_labels()["mama-ray/group"]

engine = dict(num_cpus=pool.cpus_per_engine, num_gpus=pool.gpus_per_engine)
parts = {
    "engine": dict(**engine, label_selector=dict(pool.engine_labels)),
    "decoding": dict(num_cpus=pool.decode_cpus, label_selector=dict(pool.decode_labels)),
    "worker": dict(num_cpus=worker.pop("CPU"), num_gpus=worker.pop("GPU"), resources=worker),
}
first = ray.get(group.options(num_cpus=%d).remote(), timeout=300)  # while there is no node but the head
running = {name: group.options(**options).remote() for name, options in parts.items()}
print(json.dumps({"without labels": first, **{name: ray.get(task, timeout=300) for name, task in running.items()}}))
"""


@pytest.fixture
def autoscaled(monkeypatch):
    """A head, and nodes of the groups of aws.yaml that come when they are asked for; yields its environment."""
    plain_config = simulated_cluster._cluster_config

    def config_with_groups(*sizes: int) -> dict:
        config = plain_config(*sizes)
        for name in GROUPS:
            facts = aws()["available_node_types"][name]
            resources = facts["resources"] | {"CPU": _CPUS, "object_store_memory": 100 << 20}
            config["available_node_types"][name] = {
                "resources": resources, "labels": facts["labels"], "node_config": {}, "min_workers": 0, "max_workers": 1
            }  # fmt: skip
        return config

    monkeypatch.setattr(simulated_cluster, "_cluster_config", config_with_groups)
    head_cpus = aws()["available_node_types"]["head"]["resources"]["CPU"]
    cluster = simulated_cluster.SimulatedCluster(max_nodes=len(GROUPS), head_cpus=head_cpus, node_cpus=1)
    yield cluster.environment
    cluster.stop()


def test_every_part_of_a_job_gets_a_node_of_its_group_and_a_cpu_task_starts_no_gpu_node(autoscaled):
    command = [sys.executable, "-c", PROGRAM % _CPUS]
    done = subprocess.run(command, cwd=ROOT, env=autoscaled, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"engine": "caption", "decoding": "decode", "worker": "train", "without labels": "decode"}
