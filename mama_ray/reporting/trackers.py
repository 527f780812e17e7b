"""Experiment trackers beside metrics.jsonl: MLflow and Weights & Biases, with the same metric names.

Where they are and who may write there is said by their own environment variables (MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME; WANDB_API_KEY, WANDB_PROJECT, WANDB_MODE). They get copies: a tracker that fails is told once
and left alone, and no step of training waits for one. A run that is resumed goes on in the same run of the tracker,
whose identity is in `trackers.json` of the run's folder.
"""

import importlib.util
import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from typing import Any, Literal, Protocol

from mama_ray.errors import UserError
from mama_ray.masking import mask_secrets, mask_text
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

TrackerName = Literal["mlflow", "wandb"]
FILE_NAME = "trackers.json"
_PROJECT = "mama_ray"
_LAST_WORDS_S = 60.0  # what a tracker may take at the end to get rid of what it was given


class Tracker(Protocol):
    """One run in one tracker; every method may block and raise."""

    identity: str

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the scalars after `step` steps."""

    def close(self, *, has_failed: bool) -> None:
        """Say how the run ended."""


class MlflowTracker:
    """A run of MLflow. Its names may not hold an @: `val/t2v_R@1` is `val/t2v_R_at_1` there."""

    def __init__(self, run: str, identity: str | None, settings: Mapping[str, str], folder: str | None) -> None:
        """Go on in the run of an identity, or begin one with the settings as its parameters."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if identity is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            found = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name) if found is None else found.experiment_id
            identity = self._client.create_run(experiment, run_name=run).info.run_id
            for key, value in settings.items():
                self._client.log_param(identity, _mlflow_name(key), value[:500])
        else:
            self._client.update_run(identity, status="RUNNING")
        self.identity = identity

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the scalars after `step` steps."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(_mlflow_name(name), value, now_ms, step) for name, value in scalars.items()]
        self._client.log_batch(self.identity, metrics=metrics)

    def close(self, *, has_failed: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.identity, "FAILED" if has_failed else "FINISHED")


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, run: str, identity: str | None, settings: Mapping[str, str], folder: str | None) -> None:
        """Go on in the run of an identity, or begin one with the settings as its config; files go below `folder`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.identity = identity or uuid.uuid4().hex[:16]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=run, id=self.identity, resume="allow",
            config=dict(settings), dir=folder, settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the scalars after `step` steps; those of steps that it has already had are left out."""
        if step >= self._run.step:
            self._run.log(dict(scalars), step=step)

    def close(self, *, has_failed: bool) -> None:
        """Say how the run ended."""
        self._run.finish(exit_code=int(has_failed))


_TRACKERS: dict[TrackerName, Callable[..., Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}


def require_trackers(names: Iterable[TrackerName]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"tracker {name} is not installed", remedy=f"install the extra: uv pip install -e '.[{name}]'"
            )


class Trackers:
    """The trackers of one run, fed from a thread of their own in the order of the records."""

    def __init__(self, names: Iterable[TrackerName], run: str, run_folder: Place, settings: Mapping[str, str]) -> None:
        """Begin, or go on, in every tracker named."""
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="trackers")
        self._open: dict[TrackerName, Tracker] = {}
        self._last: Future | None = None
        for name in dict.fromkeys(names):
            self._submit(self._begin, name, run, run_folder, mask_secrets(settings))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Hand on the scalars of a record; curves and what is no finite number are left out."""
        scalars = {
            name: float(value)
            for name, value in metrics.items()
            if not isinstance(value, list | tuple) and math.isfinite(value)
        }
        if scalars:
            self._submit(self._each, lambda tracker: tracker.write(step, scalars))

    def close(self, *, has_failed: bool) -> None:
        """Tell the trackers how the run ended and wait, not for ever, until they have everything."""
        self._submit(self._each, lambda tracker: tracker.close(has_failed=has_failed))
        try:
            if self._last is not None:
                self._last.result(timeout=_LAST_WORDS_S)
        except TimeoutError:
            logger.warning("trackers do not have all of the metrics after %.0f s; metrics.jsonl has", _LAST_WORDS_S)
        self._queue.shutdown(wait=False, cancel_futures=True)

    def _submit(self, function: Any, *arguments: Any) -> None:
        self._last = self._queue.submit(function, *arguments)

    def _begin(self, name: TrackerName, run: str, run_folder: Place, settings: dict[str, str]) -> None:
        place = run_folder / FILE_NAME
        try:
            known = place.read_json() or {}
            local = run_folder.path if run_folder.is_local else None
            tracker = _TRACKERS[name](run, known.get(name), settings, local)
            self._open[name] = tracker
            if known.get(name) != tracker.identity:
                place.write_whole(json.dumps(known | {name: tracker.identity}))
        except Exception as error:  # a tracker is no reason for a run to end
            self._give_up(name, error)

    def _each(self, do: Any) -> None:
        for name, tracker in list(self._open.items()):
            try:
                do(tracker)
            except Exception as error:
                self._give_up(name, error)

    def _give_up(self, name: TrackerName, error: Exception) -> None:
        self._open.pop(name, None)
        reason = mask_text(" ".join(str(error).split()))[:300] or type(error).__name__
        logger.warning("%s gets no more metrics of this start (%s); metrics.jsonl has them", name, reason)


def _mlflow_name(name: str) -> str:
    return re.sub(r"[^\w./: -]", "_", name.replace("@", "_at_"))
