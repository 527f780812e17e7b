"""Early stopping of trials that fall behind, by what the study knows."""

from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from mama_ray.orchestration.sweep.database import run_of
from mama_ray.orchestration.sweep.values import NUM_STEPS, STEP


class StudyHalving(AsyncHyperBandScheduler):
    """Asynchronous successive halving (ASHA) over training steps that remembers the trials of earlier starts."""

    def __init__(self, study: optuna.Study, metric: str, mode: str, *, num_steps: int, grace: int, factor: float):
        super().__init__(
            time_attr=STEP,
            metric=metric,
            mode=mode,
            max_t=num_steps,
            grace_period=grace,
            reduction_factor=factor,
            stop_last_trials=False,  # a trial may have more steps than the base, whose number this is
        )
        for trial in study.get_trials(deepcopy=False):
            for step, value in sorted(trial.intermediate_values.items()):
                known = SimpleNamespace(trial_id=run_of(trial))
                self._brackets[0].on_result(known, step, self._metric_op * value)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Stop a trial that is not among the best at its rung; one at its last step ends by itself."""
        if STEP in result and result[STEP] >= result[NUM_STEPS]:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)
