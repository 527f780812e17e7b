"""An autoscaled Ray cluster on one machine: real raylets, started and ended by Ray's autoscaler as a cloud's would be.

Ray's own AutoscalingCluster is not used: its template is missing from the wheel, and it ends every Ray on the machine.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import ray._private.services as services
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.orchestration.captioning.captioning_runs import RAY, free_port

_NO_COMMANDS = (
    "head_setup_commands", "head_start_ray_commands", "initialization_commands", "rsync_exclude", "rsync_filter",
    "setup_commands", "worker_setup_commands", "worker_start_ray_commands", "cluster_synced_files",
)  # fmt: skip


class SimulatedCluster:
    """A head without caption slots, and nodes with one each that come when slots are asked for and go when idle."""

    def __init__(self, *, max_nodes: int, head_cpus: int, node_cpus: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="mr-", dir="/tmp")  # short: sockets lie below it; and ours alone
        port = free_port()
        config = Path(self._folder, "cluster.json")
        config.write_text(json.dumps(_cluster_config(port, max_nodes, head_cpus, node_cpus)))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        common = os.environ | {"PATH": path, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
        self.environment = common | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
        autoscaled = {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        command = [RAY, "start", "--head", "--block", f"--port={port}", f"--num-cpus={head_cpus}"]
        command += ["--object-store-memory=200000000", f"--autoscaling-config={config}", "--include-dashboard=false"]
        command += [f"--temp-dir={self._folder}/ray", "--disable-usage-stats"]
        log = open(Path(self._folder, "head.log"), "wb")  # noqa: SIM115 - the head writes to it to its end
        options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
        self._head = subprocess.Popen(command, env=common | autoscaled, **options)
        _wait_for(port)

    def node_raylets(self) -> list[psutil.Process]:
        """Return the raylets of the nodes beside the head, oldest first."""
        raylets = {}
        for process in self._processes():
            with contextlib.suppress(psutil.Error):  # it may end while it is looked at
                if process.name() == "raylet":
                    raylets[process.create_time()] = process
        return [raylets[created] for created in sorted(raylets)][1:]

    def stop(self) -> None:
        """End all processes of this cluster and no other."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        self._head.wait(timeout=30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        found = {}
        for process in psutil.process_iter(["cmdline"]):
            if self._folder in " ".join(process.info["cmdline"] or []):
                found[process.pid] = process
                with contextlib.suppress(psutil.Error):
                    found |= {child.pid: child for child in process.children(recursive=True)}
        return list(found.values())


def _cluster_config(port: int, max_nodes: int, head_cpus: int, node_cpus: int) -> dict:
    node = {"CPU": node_cpus, "caption_slot": 1, "object_store_memory": 100 << 20}
    return {
        "cluster_name": "simulated",
        "max_workers": max_nodes,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"{services.get_node_ip_address()}:{port}",  # the provider takes port 6379 otherwise
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0},
            "caption": {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": max_nodes},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in _NO_COMMANDS},
    }


def _wait_for(port: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the head did not start")
