"""What was given no GPU does not see itself with one, though Ray shows it those of the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# A GPU by name alone, as Ray counts what it is told; it needs none to hand out its number.
PROGRAM = """
import ray
from mama_ray.orchestration.cluster.loopback import close_local_ray
from mama_ray.orchestration.cluster.own_device import has_own_gpu, own_device
close_local_ray()
ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=10**8)
look = ray.remote(lambda: (has_own_gpu(), own_device().type))
asked = [look.options(num_cpus=1, num_gpus=gpus).remote() for gpus in (0, 0.5, 1)]
print(ray.get(asked), has_own_gpu())
"""

pytestmark = pytest.mark.ray


def test_a_task_has_a_gpu_if_it_was_given_one_or_a_part():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "0"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[(False, 'cpu'), (True, 'cpu'), (True, 'cpu')] False"
