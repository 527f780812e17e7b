"""Fixtures of all tests: one small local Ray, the shared files, fixed seeds, one thread."""

import os
import secrets

# Before ray is imported anywhere: it reads these at import. One token for all that a test starts, nodes of other
# processes among them; the default of Ray would be a file in the home directory.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Starting workers takes seconds each on busy cores; Ray Train gives a group of them 60 s.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "240")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing in a test may need a screen, a home directory's settings or a running cluster.
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("RAY_ADDRESS", None)

import random
import shutil
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from tests.storage.s3_server import s3_bucket, s3_server  # noqa: F401 - fixtures
from tests.storage.small_disks import small_disk  # noqa: F401 - a fixture

# How long an example takes is the machine's affair and that of what else runs on it.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

SHARED = Path(__file__).resolve().parents[1] / "../shared"


@pytest.fixture(autouse=True)
def _same_start():
    """Give every test the same random numbers and one torch thread, whatever ran before it."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data beside the repository; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder {SHARED}, which is absent")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def ray_cluster():
    """A local Ray of 4 logical CPUs for the whole test session; only its own processes are ended."""
    import ray

    from mama_ray.orchestration.cluster.loopback import close_local_ray

    close_local_ray()
    # Sockets lie below this folder and their paths may have 107 characters, too few for pytest's own folders.
    folder = tempfile.mkdtemp(prefix="mr-", dir="/tmp")
    settings = {
        "address": "local",
        "num_cpus": 4,
        "include_dashboard": False,
        "object_store_memory": 256 * 1024**2,
        "log_to_driver": False,
        "logging_level": "warning",
        "_temp_dir": folder,
    }
    try:
        ray.init(**settings)
    except Exception:  # Ray gives its own processes 30 s to start, too few where other work keeps the cores busy
        ray.shutdown()
        ray.init(**settings)
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
