"""What all jobs that train on Ray Train share: a run's folder is opened, and a group of workers is started in it."""

import json
import os
import platform
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Literal, Protocol

import pyarrow.fs as pafs
import ray
import ray.train
from pydantic import Field
from ray.train.torch import TorchConfig, TorchTrainer

from mama_ray.config import config_to_yaml, load_yaml
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.placement import PlacementConfig
from mama_ray.storage.places import write_text
from mama_ray.training.manifest import list_checkpoints

# What may change between two starts of one run without changing what is learned.
MAY_CHANGE = frozenset({
    "storage", "run", "num_workers", "cpus_per_worker", "use_gpu", "log_every", "checkpoint_every",
    "num_checkpoints_to_keep", "max_failures", "num_micro_batches", "placement",
    "resize_every_s",
})  # fmt: skip

# An elastic group is sized by what Ray last saw of the nodes, up to 20 s ago: after the loss of one it may ask for more
# than there is, and then must give up soon to ask again.
_ELASTIC_START_TIMEOUT_S = "10"


# A number, or {min: 1, max: 8} of an elastic group; a mapping, as the command line and its help take no group of
# settings where a number may stand as well.
_AtLeastOne = Annotated[int, Field(ge=1)]
NumWorkers = _AtLeastOne | dict[Literal["min", "max"], _AtLeastOne]


@dataclass(frozen=True)
class WorkerRange:
    """How many train workers a group may have: elastic, it goes on with fewer when nodes are lost, with more when they
    come. Every `resize_every_s` it is seen whether more fit."""

    min: int
    max: int
    resize_every_s: float = 60.0

    @classmethod
    def of(cls, num_workers: NumWorkers, *, resize_every_s: float = 60.0) -> "WorkerRange":
        """Make the range of a config's value; raises ValueError where it is none."""
        if isinstance(num_workers, int):
            return cls(num_workers, num_workers)
        if set(num_workers) != {"min", "max"} or num_workers["min"] > num_workers["max"]:
            raise ValueError(f"num_workers: got {num_workers}, wanted min and max with min <= max, or a number")
        return cls(num_workers["min"], num_workers["max"], resize_every_s)

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change."""
        return self.min < self.max


class RunSettings(Protocol):
    """The part of a training job's config that says where and on what it runs."""

    run: str
    num_workers: NumWorkers
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


def resources_of_worker(job: RunSettings, placement: PlacementConfig) -> dict[str, float]:
    """Return what each train worker reserves."""
    return {"CPU": job.cpus_per_worker, **({"GPU": 1} if job.use_gpu else {}), **placement.worker_resources}


def run_workers(
    train_fn_per_worker: Callable[[dict], None],
    loop_config: dict,
    job: RunSettings,
    filesystem: pafs.FileSystem,
    run_path: str,
    *,
    workers: WorkerRange | None = None,
    placement: PlacementConfig | None = None,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Run a function on a group of Ray Train workers to its end, through the crashes that the job survives."""
    workers, placement = workers or WorkerRange.of(job.num_workers), placement or PlacementConfig()
    if workers.is_elastic:
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = _ELASTIC_START_TIMEOUT_S
    TorchTrainer(
        train_fn_per_worker,
        train_loop_config=loop_config | {"job": job, "show_bar": sys.stderr.isatty()},
        torch_config=TorchConfig(backend="nccl" if job.use_gpu else "gloo", timeout_s=300),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(workers.min, workers.max) if workers.is_elastic else workers.max,
            elastic_resize_monitor_interval_s=workers.resize_every_s,
            use_gpu=job.use_gpu,
            resources_per_worker=resources_of_worker(job, placement),
            label_selector=dict(placement.worker_labels) or None,
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
