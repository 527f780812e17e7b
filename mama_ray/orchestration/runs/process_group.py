"""How train workers find each other: on one machine by a file that only its user can open, else as Ray Train does it.

Torch's own meeting place (TCPStore) listens on all interfaces whatever address it is told, and asks nobody who he is.
"""

import shutil
import tempfile
from pathlib import Path

import ray

# What TorchConfig's own start consists of; Ray Train offers no other way to choose where workers meet.
from ray.train.torch.config import (
    TorchConfig,
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

from mama_ray.orchestration.cluster.loopback import is_on_loopback


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
