"""Early stopping of trials that fall behind, by what the study knows: asynchronous successive halving (ASHA).

Li et al., A System for Massively Parallel Hyperparameter Tuning (MLSys 2020), https://arxiv.org/abs/1810.05934, in the
variant that stops trials and never pauses them, which is that of Ray Tune's ASHAScheduler.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from mama_ray.orchestration.sweep.database import run_of
from mama_ray.orchestration.sweep.search import StudySearch


class RungPruner(optuna.pruners.BasePruner):
    """Stops a trial that is not among the best 1/factor of those that have come to its rung.

    Rungs lie at grace, grace * factor, ... training steps, up to num_steps. A run comes to a rung once, with its first
    value at or past it, and is compared with the runs that were there before it. All of that is read out of the
    study's intermediate values, so trials of earlier starts count, and a run that goes on after a restart is not
    judged again at the rung where it was.
    """

    def __init__(self, *, num_steps: int, grace: int, factor: float) -> None:
        self._share = 1 / factor
        self._rungs: list[float] = []
        rung = float(grace)
        while rung <= num_steps:
            self._rungs.append(rung)
            rung *= factor

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judge a trial by its last value; False between the rungs and for a run that was judged at this one before."""
        step = trial.last_step
        rung = None if step is None else self._rung_of(step)
        if step is None or rung is None or self._first_at(rung, trial) != step:
            return False
        run, others = run_of(trial), {}
        for other in study.get_trials(deepcopy=False):
            first = self._first_at(rung, other)
            if first is None or other.number == trial.number:
                continue
            if run_of(other) == run:  # begun by an earlier start, and judged there
                return False
            others.setdefault(run_of(other), other.intermediate_values[first])
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        reached = [sign * value for value in others.values()]
        return falls_behind(sign * trial.intermediate_values[step], reached, share=self._share)

    def _rung_of(self, step: int) -> float | None:
        """Return the last rung at or before a step; a trial that validates seldom passes some unseen."""
        return max((rung for rung in self._rungs if rung <= step), default=None)

    def _first_at(self, rung: float, trial: FrozenTrial) -> int | None:
        return min((step for step in trial.intermediate_values if self._rung_of(step) == rung), default=None)


def falls_behind(value: float, others: Sequence[float], *, share: float) -> bool:
    """Tell whether a value, of which more is better, lies outside the best `share` of others; the first one never."""
    return bool(others) and value < float(np.quantile(others, 1 - share))


class StudyHalving(FIFOScheduler):
    """Ray Tune's side of early stopping: it asks the study's pruner at every validation."""

    def __init__(self, search: StudySearch) -> None:
        super().__init__()
        self._search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Stop a trial that the pruner gives up."""
        is_behind = self._search.is_given_up(trial.trial_id, result)
        return TrialScheduler.STOP if is_behind else TrialScheduler.CONTINUE
