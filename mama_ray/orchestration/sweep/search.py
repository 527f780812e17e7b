"""Ray Tune's searcher over a study that outlives it.

Everything that a resumed sweep needs is in the Optuna study: the searcher is built from it anew at every start, asks it
for trials and tells it how they ended, and Ray Tune's own pickled state is never read.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher

from mama_ray.orchestration.sweep.database import RUN_ATTRIBUTE, StudyStore, num_finished, run_of
from mama_ray.orchestration.sweep.values import (
    FAILURE,
    IS_OF_STORAGE,
    NUM_STEPS,
    STEP,
    STEP_TIME,
    describe_point,
    describe_values,
    missing_metrics,
)

logger = logging.getLogger(__name__)


class StudySearch(Searcher):
    """A searcher whose trials have names that last, whose steps are training steps, and which knows pruned ones."""

    def __init__(
        self,
        store: StudyStore,
        study: optuna.Study,
        distributions: Mapping[str, BaseDistribution],
        objectives: Mapping[str, str],
        *,
        num_samples: int,
    ) -> None:
        super().__init__()  # metric and mode are the study's business: Ray Tune itself compares nothing
        self._store, self._study = store, study
        self._distributions, self._objectives, self._num_samples = dict(distributions), objectives, num_samples
        self._running: dict[str, optuna.Trial] = {}  # by Ray Tune's id, which is another one at every start
        self._reported: set[tuple[str, int]] = set()
        self.storage_failure: str | None = None  # of a trial: the next ones would end alike

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return {"run": name, "point": values by key} of a new trial, or of one that is queued.

        None is begun once a storage has failed.
        """
        if self.storage_failure is not None:
            return Searcher.FINISHED
        trial = self._study.ask(self._distributions)
        self._running[trial_id] = trial
        run = run_of(trial)
        trial.set_user_attr(RUN_ATTRIBUTE, run)
        self._store.publish()
        logger.info("%s: %s", run, describe_point(trial.params))
        return {"run": run, "point": dict(trial.params)}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Record the value at a training step, for pruning and for the curves of the report."""
        self._record(trial_id, result)

    def is_given_up(self, trial_id: str, result: dict) -> bool:
        """Record a result and ask the study's pruner about its trial; one at its last step ends by itself."""
        if not self._record(trial_id, result):
            return False
        return result[STEP] < result[NUM_STEPS] and self._running[trial_id].should_prune()

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended: complete at the last step, pruned before it, or failed."""
        if trial_id not in self._running:
            return
        if result:
            self._record(trial_id, result)  # Ray Tune leaves that out for the result at which it stops a trial
        trial = self._running.pop(trial_id)
        if result and result.get(IS_OF_STORAGE):
            self.storage_failure = result[FAILURE]
        values = None if error or not result or FAILURE in result else self._values(result)
        if result is None or values is None:
            state = TrialState.FAIL
        else:
            state = TrialState.COMPLETE if result[STEP] >= result[NUM_STEPS] else TrialState.PRUNED
            trial.set_user_attr("num_steps", int(result[STEP]))
            trial.set_user_attr("step_s", float(result.get(STEP_TIME) or math.nan))
        # A pruned trial has no final value: the study takes its last one as such.
        self._study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)
        self._store.publish()
        told = "failed" if values is None else f"{describe_values(self._objectives, values)}, {state.name.lower()}"
        logger.info(
            "%s: %s (%d of %d trials done)",
            trial.user_attrs[RUN_ATTRIBUTE],
            told,
            num_finished(self._study),
            self._num_samples,
        )

    def save(self, checkpoint_path: str) -> None:
        """Write nothing of worth: the study is the state, and it is in its database already."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: see save."""

    def _record(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Give the study the value at a step that it does not know yet; returns whether there was one."""
        values = self._values(result)
        if values is None or len(values) > 1:  # Optuna keeps no intermediate values of several objectives
            return False
        at = (trial_id, result[STEP])
        if trial_id not in self._running or at in self._reported:  # one that was started again validates some twice
            return False
        self._reported.add(at)
        self._running[trial_id].report(values[0], result[STEP])
        return True

    def _values(self, result: Mapping[str, Any]) -> list[float] | None:
        if STEP not in result or missing_metrics(result, self._objectives):
            return None
        return [float(result[metric]) for metric in self._objectives]
