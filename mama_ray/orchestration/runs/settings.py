"""The settings that every training job has: on how many workers it runs, and on what each of them."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field

from mama_ray.errors import UserError
from mama_ray.reporting.trackers import TrackerName

# A number, or {min: 1, max: 8} of an elastic group; a mapping, as the command line and its help take no group of
# settings where a number may stand as well.
_AtLeastOne = Annotated[int, Field(ge=1)]
NumWorkers = _AtLeastOne | dict[Literal["min", "max"], _AtLeastOne]

Precision = Literal["auto", "float32", "bfloat16"]


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
    """The part of a training job's config that says how long it runs, on what, and what it keeps."""

    @property
    def run(self) -> str:
        """Name of the run."""

    @property
    def num_epochs(self) -> float:
        """Passes over the training split."""

    @property
    def global_batch_size(self) -> int:
        """Clips per step over all workers."""

    @property
    def num_workers(self) -> NumWorkers:
        """Ray Train workers, a number or a range."""

    @property
    def cpus_per_worker(self) -> float:
        """CPUs that each reserves."""

    @property
    def use_gpu(self) -> bool:
        """Whether each has a GPU."""

    @property
    def max_failures(self) -> int:
        """Crashes of workers that the run survives; -1 is any number."""

    @property
    def log_every(self) -> int:
        """Steps between two records of metrics."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""

    @property
    def num_checkpoints_to_keep(self) -> int:
        """Newest checkpoints kept."""

    @property
    def trackers(self) -> tuple[TrackerName, ...]:
        """Experiment trackers that get the metrics too."""


def count_steps(job: RunSettings, num_clips: int) -> int:
    """Return the steps of a run on `num_clips` training clips."""
    return math.ceil(job.num_epochs * num_clips / job.global_batch_size)


def require_one_batch(job: RunSettings, num_clips: int) -> None:
    """Raise UserError where there are fewer training clips than one batch takes."""
    if num_clips < job.global_batch_size:
        raise UserError("fewer training clips than one batch", got=num_clips, wanted=f">= {job.global_batch_size}")
