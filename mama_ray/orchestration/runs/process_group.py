"""How train workers find each other: on one machine by a file that only its user can open, else as Ray Train does it.

Torch's own meeting place (TCPStore) listens on all interfaces whatever address it is told, and asks nobody who he is.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import ray

# What TorchConfig's own start consists of; Ray Train offers no other way to choose where workers meet.
from ray.train.torch.config import (
    TorchConfig,
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)
from ray.util import get_node_ip_address

from mama_ray.orchestration.cluster.loopback import is_on_loopback

_GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


class ProcessGroupConfig(TorchConfig):
    """Ray Train's TorchConfig, whose workers open no port to the outside where all of them are on one machine."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The class that starts the process group."""
        return _ProcessGroup


class _ProcessGroup(_TorchBackend):
    _folder: Path | None = None

    def on_start(self, worker_group, backend_config: ProcessGroupConfig) -> None:
        if not is_on_loopback():
            worker_group.execute(_meet_at_node_address)
            super().on_start(worker_group, backend_config)
            return
        self._folder = Path(tempfile.mkdtemp(prefix="mama-ray-ranks-"))
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _setup_torch_process_group,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=f"file://{self._folder / 'ranks'}",
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group, backend_config: ProcessGroupConfig) -> None:
        super().on_shutdown(worker_group, backend_config)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _meet_at_node_address() -> None:
    """Let Gloo listen where Ray knows this node.

    It would take the address of the machine's name instead, which on many machines is a loopback address (127.0.1.1 in
    Debian's /etc/hosts): workers on other hosts then connect to themselves.
    """
    if _GLOO_INTERFACE in os.environ:
        return
    address = get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            os.environ[_GLOO_INTERFACE] = name
            return
