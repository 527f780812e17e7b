"""The tuning that every method has on the same terms: a grid of its settings, widened where its edge wins.

Each method has equally many points on the same seeds, which the study never tests on. Where the best point of a grid
has a setting at the edge of what was tried, the next value beyond is tried with it, a bounded number of times.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mama_ray.config import with_overrides
from mama_ray.errors import UserError, unknown_name
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.plan import Overrides
from mama_ray.experiments.study.results import TuningTrial

Point = tuple[tuple[str, float], ...]
Chosen = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PlannedTrial:
    """One cell of the tuning: a method at a point of its grid; `is_beyond` where the grid was widened to it."""

    method: str
    point: Point
    cell: CellConfig
    is_beyond: bool = False


Scored = Sequence[tuple[PlannedTrial, float]]


@dataclass(frozen=True)
class Tuning:
    """What the methods are tuned over, from which base and on which seeds."""

    base: CellConfig
    methods: Mapping[str, Overrides]
    grids: Mapping[str, Mapping[str, Sequence[float]]]
    seeds: Sequence[int]

    def trials_at(self, method: str, point: Point, *, is_beyond: bool = False) -> list[PlannedTrial]:
        """Return the trials of a method at a point, one a seed; ValueError for a point that no cell can have."""
        overrides = {**self.methods[method], **{key: _plain(value) for key, value in point}}
        cells = [with_overrides(self.base, {**overrides, "seed": seed}) for seed in self.seeds]
        return [PlannedTrial(method, point, cell, is_beyond) for cell in cells]

    def plan(self) -> list[PlannedTrial]:
        """Return the trials of all grids; UserError unless every method has equally many points."""
        trials, budgets = [], {}
        for method, grid in self.grids.items():
            if method not in self.methods:
                raise unknown_name("method in tuning", method, self.methods)
            if not grid:
                raise UserError(f"tuning of {method}", got="no settings", wanted="one or more")
            points = [tuple(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
            budgets[method] = len(points)
            for point in points:
                trials += self.trials_at(method, point)
        if len(set(budgets.values())) > 1:
            raise UserError("methods are tuned over unequally many values", got=budgets, wanted="the same for all")
        return trials

    def widen(self, scored: Scored) -> list[PlannedTrial]:
        """Return the trials one value beyond the edges that won; none where a setting can go no further."""
        trials = []
        for method, best in _best_points(scored).items():
            for key, value in best:
                beyond = _next_value(value, _tried(scored, method, key))
                if beyond is None:
                    continue
                point = tuple((name, beyond if name == key else old) for name, old in best)
                try:
                    trials += self.trials_at(method, point, is_beyond=True)
                except ValueError:  # the edge of the grid is that of the setting: a share of 1
                    continue
        return trials


def tuning_of(job: StudyJob) -> Tuning:
    """Return what a study's methods are tuned over."""
    return Tuning(with_overrides(job.cell, job.tuning_base), job.methods, job.tuning, job.tuning_seeds)


def val_recall(result: Mapping[str, Any]) -> float:
    """Return what the tuning goes by: the best val recall on the way of a run."""
    return result["curve"][result["selected"]]["val"]["t2v_R@1"]


def tune(
    tuning: Tuning,
    run_all: Callable[[Sequence[CellConfig]], Sequence[float]],
    *,
    num_widenings: int,
    name_of: Callable[[CellConfig], str] = lambda cell: "",
) -> tuple[Chosen, tuple[TuningTrial, ...]]:
    """Run the grids, widen them as often as is allowed, and choose; `run_all` returns the val recall of cells,
    `name_of` what the table calls one.
    """
    trials = tuning.plan()
    scored = list(zip(trials, run_all([trial.cell for trial in trials]), strict=True))
    for _ in range(num_widenings):
        known = {(trial.method, trial.point) for trial, _ in scored}
        more = [trial for trial in tuning.widen(scored) if (trial.method, trial.point) not in known]
        if not more:
            break
        scored += zip(more, run_all([trial.cell for trial in more]), strict=True)
    return choose(scored, name_of)


def choose(
    scored: Scored, name_of: Callable[[CellConfig], str] = lambda cell: ""
) -> tuple[Chosen, tuple[TuningTrial, ...]]:
    """Return for each method the point with the best mean val recall (of equals the first), and the table of trials."""
    best = _best_points(scored)
    table = tuple(
        TuningTrial(
            method=trial.method,
            key=" × ".join(key for key, _ in trial.point),
            value=trial.point[0][1] if len(trial.point) == 1 else ", ".join(f"{value:g}" for _, value in trial.point),
            seed=trial.cell.seed,
            val=val,
            chosen=trial.point == best[trial.method],
            beyond=trial.is_beyond,
            cell=name_of(trial.cell),
            at_edge=_edges(scored, trial) if trial.point == best[trial.method] else (),
        )
        for trial, val in scored
    )
    return {method: {key: _plain(value) for key, value in point} for method, point in best.items()}, table


def _best_points(scored: Scored) -> dict[str, Point]:
    scores: dict[str, dict[Point, list[float]]] = {}
    for trial, val in scored:
        scores.setdefault(trial.method, {}).setdefault(trial.point, []).append(val)
    return {
        method: max(points, key=lambda point: sum(points[point]) / len(points[point]))
        for method, points in scores.items()
    }


def _tried(scored: Scored, method: str, key: str) -> list[float]:
    return sorted({dict(trial.point)[key] for trial, _ in scored if trial.method == method})


def _edges(scored: Scored, trial: PlannedTrial) -> tuple[str, ...]:
    tried = {key: _tried(scored, trial.method, key) for key, _ in trial.point}
    return tuple(key for key, value in trial.point if len(tried[key]) > 1 and value in (tried[key][0], tried[key][-1]))


def _next_value(value: float, tried: Sequence[float]) -> float | None:
    """Return the value beyond an edge: as far from it as its neighbour, by ratio where both are above 0."""
    if len(tried) < 2 or value not in (tried[0], tried[-1]):
        return None
    neighbour = tried[1] if value == tried[0] else tried[-2]
    beyond = value * value / neighbour if value > 0 and neighbour > 0 else 2 * value - neighbour
    return float(f"{beyond:.6g}")


def _plain(value: float) -> float | int:
    """A whole number serves a setting of either kind."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
