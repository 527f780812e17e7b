"""From methods, experiments and seeds to cells; and the tuning that every method has on the same terms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import model_validator

from mama_ray.config import Config, with_overrides
from mama_ray.errors import UserError, unknown_name
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.results import TuningTrial

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


@dataclass(frozen=True)
class PlannedTrial:
    """One cell of the tuning."""

    method: str
    key: str
    value: float
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


def plan_tuning(
    base: CellConfig,
    methods: Mapping[str, Overrides],
    tuning: Mapping[str, Mapping[str, Sequence[float]]],
    seeds: Sequence[int],
) -> list[PlannedTrial]:
    """Return the cells of the tuning: for each method the values of one setting, on seeds that the study never uses.

    UserError unless every method has equally many values.
    """
    trials, budgets = [], {}
    for method, grid in tuning.items():
        if method not in methods:
            raise unknown_name("method in tuning", method, methods)
        if len(grid) != 1:
            raise UserError(f"tuning of {method}", got=f"{len(grid)} settings", wanted="exactly one")
        ((key, values),) = grid.items()
        budgets[method] = len(values)
        for value in values:
            for seed in seeds:
                cell = with_overrides(base, {**methods[method], key: value, "seed": seed})
                trials.append(PlannedTrial(method, key, value, cell))
    if len(set(budgets.values())) > 1:
        raise UserError("methods are tuned over unequally many values", got=budgets, wanted="the same for all")
    return trials


def choose(trials: Iterable[tuple[PlannedTrial, float]]) -> tuple[dict[str, dict[str, Any]], tuple[TuningTrial, ...]]:
    """Return for each method the value with the best mean val recall (of equals the first), and the table of trials."""
    found = list(trials)
    scores: dict[str, dict[float, list[float]]] = {}
    for trial, val in found:
        scores.setdefault(trial.method, {}).setdefault(trial.value, []).append(val)
    best = {method: max(values, key=lambda value: sum(values[value])) for method, values in scores.items()}
    keys = {trial.method: trial.key for trial, _ in found}
    table = tuple(
        TuningTrial(
            method=trial.method,
            key=trial.key,
            value=trial.value,
            seed=trial.cell.seed,
            val=val,
            chosen=trial.value == best[trial.method],
        )
        for trial, val in found
    )
    return {method: {keys[method]: value} for method, value in best.items()}, table
