"""What every trainer records alike: metrics and throughput, progress, checkpoints, reports to Ray Train.

Rank 0 writes. Every rank makes the same calls, for `save` ends in `ray.train.report`, which is a barrier.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, Self, TypeVar

import ray.train

from mama_ray.orchestration.cluster.exported_metrics import export_metrics
from mama_ray.orchestration.runs.checkpoint_writer import WriteFiles
from mama_ray.orchestration.runs.output import RunOutput
from mama_ray.orchestration.runs.settings import RunSettings
from mama_ray.orchestration.runs.step_clock import StepClock
from mama_ray.orchestration.runs.worker import Worker

_Batch = TypeVar("_Batch")


class Position(Protocol):
    """Where a training stands; the states of all trainers have it."""

    num_steps: int
    global_batch_size: int
    step: int

    @property
    def samples_seen(self) -> int:
        """Clips taken from the plan so far."""


class Recording:
    """One worker's record of a run; a context manager around the training loop.

    The state's `step` counts the steps that are done, and so do records, lines, validations and checkpoints.
    """

    def __init__(
        self, job: RunSettings, state: Position, worker: Worker, *, num_clips: int, show_bar: bool = False
    ) -> None:
        self._job, self._state, self._worker = job, state, worker
        self._num_clips, self._show_bar = num_clips, show_bar
        self._clock = StepClock()
        self._step_s: float | None = None  # of the last logged window; none before the first
        self._output: RunOutput | None = None

    def __enter__(self) -> Self:
        if self.is_written_here:
            self._output = RunOutput(
                self._job.run,
                self._worker.run_folder,
                first_step=self._state.step,
                num_steps=self._state.num_steps,
                num_checkpoints_to_keep=self._job.num_checkpoints_to_keep,
                show_bar=self._show_bar,
                trackers=self._job.trackers,
            )
        self._clock.restart()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._output is not None:
            self._output.close(has_failed=kind is not None)

    def timed(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Pass batches through and count the time spent waiting for them, from the first one on."""
        return self._clock.timed(batches)

    @property
    def is_written_here(self) -> bool:
        """Whether this worker writes: what it alone needs, the others may leave out."""
        return self._worker.rank == 0

    def is_time_to_log(self) -> bool:
        """Tell whether the step that was just done ends a window of metrics."""
        return self._is_due(self._job.log_every)

    def is_time_to_save(self) -> bool:
        """Tell whether validation and a checkpoint follow the step that was just done."""
        return self._is_due(self._job.checkpoint_every)

    def _is_due(self, every: int) -> bool:
        return self._state.step % every == 0 or self._state.step == self._state.num_steps

    def measures(self, num_steps: int) -> dict[str, float]:
        """Return how far the run is and how fast the `num_steps` steps since the last record were."""
        throughput = self._clock.throughput(num_steps, self._state.global_batch_size)
        self._step_s = throughput["throughput/step_s"]
        samples_seen = self._state.samples_seen
        return {"train/epoch": samples_seen / self._num_clips, "train/samples_seen": samples_seen, **throughput}

    def log(self, scalars: Mapping[str, float], *, loss: float) -> None:
        """Write and export the metrics of a window, its measures among them, and tell the progress; begin the next."""
        if self._output is not None:
            self._output.metrics.write(self._state.step, scalars)
            export_metrics(self._job.run, {**scalars, "run/step": self._state.step})
            speed = scalars["throughput/clips_per_s"]
            self._output.progress.tell(self._state.step, loss=loss, clips_per_s=speed)
        self._clock.restart()

    def paused(self) -> AbstractContextManager[None]:
        """Leave what is done inside out of the time of the steps, as validation and saving."""
        return self._clock.paused()

    def save(
        self,
        metrics: Mapping[str, float],
        capture: Callable[[], WriteFiles],
        *,
        selection: dict | None,
        curves: Mapping[str, list[float]],
    ) -> None:
        """Write the metrics of a validation and the checkpoint that goes with it, and report both; for every rank.

        `capture` is called on the rank that writes, and its result later in the background. `selection` is the metric,
        and its value, by which the best checkpoint is chosen.
        """
        if self._output is not None:
            if metrics or curves:
                self._output.metrics.write(self._state.step, {**metrics, **curves})
            self._output.progress.tell_validation(self._state.step, metrics)
            self._output.checkpoints.save(self._state.step, capture, selection=selection)
            export_metrics(self._job.run, metrics, {"run/checkpoints": 1})
        position = {"step": self._state.step, "num_steps": self._state.num_steps}
        ray.train.report({**position, "throughput/step_s": self._step_s, **metrics})
