"""Configs of every kind of field, for the tests of how values reach them."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mama_ray.config import Config


class Optim(Config):
    """How a step is taken."""

    lr: float = Field(1e-3, gt=0.0)
    """Peak learning rate."""

    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the moments."""

    nesterov: bool = False
    """Look ahead."""


class Store(Config):
    """A group that a command line may name by one of its fields."""

    named_by: ClassVar[str | None] = "kind"

    kind: Literal["disk", "cloud"] = "disk"
    """What it is."""

    room_gib: int = 1
    """Its size."""


class Tower(Config):
    """Has required fields."""

    width: int = Field(gt=0)
    """Channels."""

    depth: int = Field(2, gt=0)
    """Layers."""


class Job(Config):
    """A job with every kind of field."""

    optim: Optim = Optim()
    """The optimiser."""

    tower: Tower = Tower(width=64, depth=7)
    """A group whose default is not its class's."""

    run: str = "first"
    """Name of the run."""

    shards: str | None = None
    """Where the clips are."""

    mode: Literal["uniform", "jittered"] = "uniform"
    """Where frames are taken."""

    captions: dict[str, float] | None = None
    """Mixing weights."""

    num_frames: int = Field(4, ge=1)
    """Frames per clip."""

    splits: tuple[str, ...] = ("train",)
    """Which splits."""

    limit: int | Literal["none"] = "none"
    """A number or a word."""

    cache: Path | None = None
    """Local folder."""

    store: Store = Store()
    """Where results go."""

    @model_validator(mode="after")
    def _check(self):
        if self.num_frames == 13:
            raise ValueError("num_frames 13 is refused together with any mode")
        return self


class Required(Config):
    """A job that cannot start without being told something."""

    checkpoint: str
    """What is evaluated."""

    tower: Tower
    """No default either."""
