"""Ray Tune's searcher and scheduler over a study that outlives them.

Everything that a resumed sweep needs is in the Optuna study: these two are built from it anew at every start, and
Ray Tune's own pickled state is never read.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from mama_ray.orchestration.sweep.database import RUN_ATTRIBUTE, StudyStore, num_finished, run_of
from mama_ray.orchestration.sweep.values import NUM_STEPS, STEP, STEP_TIME, describe_point, describe_values

logger = logging.getLogger(__name__)


class StudySearch(OptunaSearch):
    """OptunaSearch whose trials have names that last, whose steps are training steps, and which knows pruned ones."""

    def __init__(
        self,
        store: StudyStore,
        distributions: Mapping[str, BaseDistribution],
        objectives: Mapping[str, str],
        *,
        sampler: BaseSampler,
        num_samples: int,
    ) -> None:
        metrics, modes = list(objectives), list(objectives.values())
        is_single = len(metrics) == 1
        super().__init__(
            space=dict(distributions),
            metric=metrics[0] if is_single else metrics,
            mode=modes[0] if is_single else modes,
            sampler=sampler,
            study_name=store.name,
            storage=store.storage,
        )
        self._store, self._objectives, self._num_samples = store, objectives, num_samples
        self._reported: set[tuple[str, int]] = set()

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return {"run": name, "point": values by key} of a new trial, or of one that is queued."""
        super().suggest(trial_id)
        trial = self._ot_trials[trial_id]
        run = run_of(trial)
        trial.set_user_attr(RUN_ATTRIBUTE, run)
        self._store.publish()
        logger.info("%s: %s", run, describe_point(trial.params))
        return {"run": run, "point": dict(trial.params)}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Record the value at a training step, for pruning and for the curves of the report."""
        values = self._values(result)
        if values is None or len(values) > 1:  # Optuna keeps no intermediate values of several objectives
            return
        if (trial_id, result[STEP]) not in self._reported:  # a trial that was started again validates some twice
            self._reported.add((trial_id, result[STEP]))
            self._ot_trials[trial_id].report(values[0], result[STEP])

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended: complete at the last step, pruned before it, or failed."""
        if trial_id in self._completed_trials:
            return
        if result:
            self.on_trial_result(trial_id, result)  # Ray Tune leaves that out for the result at which it stops a trial
        trial = self._ot_trials[trial_id]
        values = None if error or not result else self._values(result)
        if values is None:
            state = TrialState.FAIL
        else:
            state = TrialState.COMPLETE if result[STEP] >= result[NUM_STEPS] else TrialState.PRUNED
            trial.set_user_attr("num_steps", int(result[STEP]))
            trial.set_user_attr("step_s", float(result.get(STEP_TIME) or math.nan))
        # A pruned trial has no final value: the study takes its last one as such.
        self._ot_study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)
        self._completed_trials.add(trial_id)
        self._store.publish()
        told = "failed" if values is None else f"{describe_values(self._objectives, values)}, {state.name.lower()}"
        logger.info(
            "%s: %s (%d of %d trials done)",
            trial.user_attrs[RUN_ATTRIBUTE],
            told,
            num_finished(self._ot_study),
            self._num_samples,
        )

    def save(self, checkpoint_path: str) -> None:
        """Write nothing of worth: the study is the state, and it is in its database already."""
        with open(checkpoint_path, "w") as file:
            file.write("{}")

    def _values(self, result: Mapping[str, Any]) -> list[float] | None:
        values = [result.get(metric) for metric in self._objectives]
        whole = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        return [float(value) for value in values] if whole and STEP in result else None
