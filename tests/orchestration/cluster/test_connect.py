"""The start of a local Ray: a port that somebody took meanwhile is no reason to give up."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import _require_room_for_a_session
from tests.orchestration.cluster.listening import http_status, is_loopback, listening_sockets
from tests.orchestration.runs.training_runs import wait_until

AGENT_PORT = 52365
ROOT = Path(__file__).resolve().parents[3]

# The first port that `_free_port` gives is taken before Ray binds it, as by another program of the machine.
PROGRAM = """
import socket
import ray
from mama_ray.orchestration.cluster import connect

taken = socket.socket()
taken.bind(("127.0.0.1", 0))
taken.listen()
find_free, given = connect._free_port, []

def free_port():
    given.append(taken.getsockname()[1] if not given else find_free())
    return given[-1]

connect._free_port = free_port
connect.connect(num_cpus=2)
print("started", len(given), ray.is_initialized())
ray.shutdown()
"""


def test_a_full_folder_for_temporary_files_is_told_before_ray_starts(small_disk, monkeypatch):
    disk = small_disk("4m")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(disk))
    with pytest.raises(UserError, match=rf"no space left for the files of a local Ray: got {disk}: 4\.0 MiB, wanted"):
        _require_room_for_a_session()


@pytest.mark.ray
@pytest.mark.slow
def test_a_port_that_was_taken_meanwhile_is_given_up_for_another():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=240, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "started 2 True" in done.stdout, done.stderr[-3000:]
    assert "trying again" in done.stderr


@pytest.mark.ray
def test_a_local_ray_listens_on_loopback_only_and_answers_nobody_without_its_token(ray_cluster):
    class Actor:
        def token(self) -> str | None:
            return os.environ.get("RAY_AUTH_TOKEN")

    actor = ray_cluster.remote(Actor).remote()
    token = ray_cluster.get(actor.token.remote())
    is_open = os.environ.get("RAY_AUTH_MODE") == "disabled"
    # The agent comes after its node; another Ray of this machine may hold the one port that agents serve HTTP on.
    wait_until(lambda: is_open or _status(AGENT_PORT, None) == 401, timeout_s=60)
    sockets = listening_sockets(os.getpid())
    programs = " ".join(program for _, _, program in sockets)
    assert "gcs_server" in programs and "raylet" in programs and "Actor" in programs
    assert [one for one in sockets if not is_loopback(one[0])] == []
    if is_open:
        pytest.skip("the environment turns tokens off")
    assert token and len(token) >= 32
    assert all(_status(port, token) != 401 for port, status in _answers_of_agents().items() if status == 401)


def _answers_of_agents() -> dict[int, int | None]:
    ports = [port for _, port, program in listening_sockets(os.getpid()) if "DashboardAgent" in program]
    return {port: _status(port, None) for port in ports}


def _status(port: int, token: str | None) -> int | None:
    try:
        return http_status(port, "/api/local_raylet_healthz_", token)
    except (OSError, http.client.HTTPException):  # a port of gRPC
        return None


# What a task prints that is no task of this package's own, as Ray's part of a training prints.
ON_A_CLUSTER = """
import ray
from mama_ray.orchestration.cluster.connect import connect

@ray.remote
def kind_of_stdout():
    import sys
    return type(sys.stdout).__name__

connect()
print("stdout is", ray.get(kind_of_stdout.remote()))
ray.shutdown()
"""


@pytest.mark.ray
@pytest.mark.parametrize(("hook", "is_masked"), [(None, True), ("gc.collect", False)])
def test_workers_on_a_cluster_mask_unless_the_job_has_a_hook_of_its_own(hook, is_masked, ray_cluster):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": ray_cluster.get_runtime_context().gcs_address}
    if hook is not None:
        job = {"runtime_env": {"worker_process_setup_hook": hook}, "metadata": {}}
        environment |= {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_CLUSTER], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False,
        env=environment,
    )  # fmt: skip
    assert "stdout is " in done.stdout, done.stderr[-3000:]
    assert ("stdout is MaskedStream" in done.stdout) == is_masked
