"""The settings that every training job has: on how many workers it runs, and what may change between starts."""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field

# What may change between two starts of one run without changing what is learned.
MAY_CHANGE = frozenset({
    "storage", "run", "num_workers", "cpus_per_worker", "use_gpu", "log_every", "checkpoint_every",
    "num_checkpoints_to_keep", "max_failures", "num_micro_batches", "placement",
    "resize_every_s",
})  # fmt: skip


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
