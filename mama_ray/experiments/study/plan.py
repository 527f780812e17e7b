"""From methods, experiments and seeds to cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import model_validator

from mama_ray.config import Config, with_overrides
from mama_ray.errors import unknown_name
from mama_ray.experiments.study.cell import CellConfig

Overrides = Mapping[str, Any]


class ExperimentConfig(Config):
    """Methods compared, alone or over the values of a factor."""

    title: str
    """Heading in the report."""

    question: str
    """What the experiment answers."""

    methods: tuple[str, ...]
    """Names of methods; the first is what the others are compared with."""

    axis: str | None = None
    """What the factor is, in words."""

    factor: str | None = None
    """Dotted key of a cell's setting that takes `values`."""

    values: tuple[float, ...] = ()
    """Values of the factor."""

    settings: dict[str, dict[str, Any]] = {}
    """In place of a factor with values: named settings, each by dotted keys."""

    base: dict[str, Any] = {}
    """Settings of all cells of the experiment, by dotted key."""

    seeds: tuple[int, ...] = ()
    """Seeds of this experiment; empty takes the study's."""

    @model_validator(mode="after")
    def _has_one_factor(self) -> "ExperimentConfig":
        if bool(self.factor) != bool(self.values) or (self.factor and self.settings):
            raise ValueError("an experiment has factor and values, or settings, or neither")
        if not self.methods:
            raise ValueError("methods is empty: wanted at least one")
        return self

    def points(self) -> list[tuple[float | str | None, Overrides]]:
        """Return (x, overrides) of every value of the factor."""
        if self.factor is not None:
            # A whole number serves a setting of either kind.
            return [(value, {self.factor: int(value) if value.is_integer() else value}) for value in self.values]
        return list(self.settings.items()) or [(None, {})]


@dataclass(frozen=True)
class PlannedRun:
    """One cell and its place in an experiment."""

    experiment: str
    method: str
    x: float | str | None
    cell: CellConfig


def plan_runs(
    base: CellConfig,
    experiments: Mapping[str, ExperimentConfig],
    methods: Mapping[str, Overrides],
    chosen: Mapping[str, Overrides],
    seeds: Sequence[int],
) -> list[PlannedRun]:
    """Return every run, experiment by experiment.

    Later settings win: the base cell, the experiment's, the method's, what was chosen for it in the tuning, the
    factor's value, the seed. UserError names a method that is not there.
    """
    runs = []
    for name, experiment in experiments.items():
        for x, point in experiment.points():
            for method in experiment.methods:
                if method not in methods:
                    raise unknown_name(f"method in experiment {name}", method, methods)
                overrides = {**experiment.base, **methods[method], **chosen.get(method, {}), **point}
                for seed in experiment.seeds or seeds:
                    runs.append(PlannedRun(name, method, x, with_overrides(base, {**overrides, "seed": seed})))
    return runs
