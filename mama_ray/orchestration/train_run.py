"""What all jobs that train on Ray Train share: a run's folder is opened, and a group of workers is started in it."""

import json
import platform
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from typing import Protocol

import pyarrow.fs as pafs
import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from mama_ray.config import config_to_yaml, load_yaml
from mama_ray.errors import UserError
from mama_ray.orchestration.storage import write_text
from mama_ray.training.checkpoint import list_checkpoints

# What may change between two starts of one run without changing what is learned.
MAY_CHANGE = frozenset({
    "storage", "run", "num_workers", "cpus_per_worker", "use_gpu", "log_every", "checkpoint_every",
    "num_checkpoints_to_keep", "max_failures", "num_micro_batches",
})  # fmt: skip


class RunSettings(Protocol):
    """The part of a training job's config that says where and on what it runs."""

    run: str
    num_workers: int
    cpus_per_worker: float
    use_gpu: bool
    max_failures: int


def write_run_config(
    job: RunSettings, filesystem: pafs.FileSystem, run_path: str, *, may_change: Collection[str] = MAY_CHANGE
) -> None:
    """Write config.yaml before any work; a run that has a checkpoint must be started again with what made it."""
    path = f"{run_path}/config.yaml"
    text = config_to_yaml(job)
    if filesystem.get_file_info(path).is_file and list_checkpoints(filesystem, run_path):
        with filesystem.open_input_stream(path) as stream:
            earlier = load_yaml(stream.read().decode(), source=path)
        ours = load_yaml(text, source="this start")
        changed = [key for key in ours if key not in may_change and earlier.get(key) != ours[key]]
        if changed:
            raise UserError(
                f"run {job.run} exists with another config",
                got=", ".join(f"{key} = {ours[key]}" for key in changed),
                wanted=", ".join(f"{key} = {earlier.get(key)}" for key in changed),
                remedy="start it with its own config to resume, or give --run another name",
            )
    write_text(filesystem, path, text)


def write_environment(summary: dict, filesystem: pafs.FileSystem, run_path: str) -> None:
    """Write environment.json: versions, the cluster, and what is known of the data."""
    packages = ("mama-ray", "ray", "torch", "transformers", "decord", "pyarrow", "numpy")
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "cluster": ray.cluster_resources(),
        "data": summary,
    }
    write_text(filesystem, f"{run_path}/environment.json", json.dumps(environment, indent=1, default=str))


def run_workers(
    train_fn_per_worker: Callable[[dict], None],
    loop_config: dict,
    job: RunSettings,
    filesystem: pafs.FileSystem,
    run_path: str,
    *,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Run a function on a group of Ray Train workers to its end, through the crashes that the job survives."""
    TorchTrainer(
        train_fn_per_worker,
        train_loop_config=loop_config | {"job": job, "show_bar": sys.stderr.isatty()},
        torch_config=TorchConfig(backend="nccl" if job.use_gpu else "gloo", timeout_s=300),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.num_workers,
            use_gpu=job.use_gpu,
            resources_per_worker={"CPU": job.cpus_per_worker} | ({"GPU": 1} if job.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name="ray_train",
            storage_path=run_path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=job.max_failures),
            callbacks=list(callbacks),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    ).fit()
