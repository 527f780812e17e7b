"""What a worker does after each step of a narrator's training: count, log, validate, save.

Rank 0 writes; every rank takes part in validation and in `ray.train.report`, which is a barrier.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import ray.train
import torch

from mama_ray.captioning.narrator.folder import NarratorInput
from mama_ray.config import config_to_yaml
from mama_ray.models.host_copy import Buffers
from mama_ray.objectives.gather import gather_plain
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.state import NarratorState, capture_state, write_state
from mama_ray.orchestration.narrator.validation import NarratorValidation
from mama_ray.orchestration.runs.checkpoint_writer import WriteFiles
from mama_ray.orchestration.runs.output import RunOutput
from mama_ray.orchestration.runs.step_clock import StepClock
from mama_ray.storage.places import Place
from mama_ray.training.state import require_finite

_Batch = TypeVar("_Batch")


class NarratorRecorder:
    """Records one worker's run; a context manager around the loop."""

    def __init__(
        self,
        job: NarratorJob,
        state: NarratorState,
        validation: NarratorValidation,
        num_clips: int,
        run_folder: Place,
        *,
        rank: int,
        show_bar: bool,
    ) -> None:
        self._job, self._state, self._validation, self._num_clips = job, state, validation, num_clips
        self._run_folder = run_folder
        self._rank, self._show_bar = rank, show_bar
        self._losses: list[torch.Tensor] = []
        self._num_invalid: list[torch.Tensor] = []
        self._clock = StepClock()
        self._output: RunOutput | None = None
        self._buffers: Buffers = {}

    def __enter__(self) -> "NarratorRecorder":
        if self._rank == 0:
            self._output = RunOutput(
                self._job.run,
                self._run_folder,
                first_step=self._state.step,
                num_steps=self._state.num_steps,
                num_checkpoints_to_keep=self._job.num_checkpoints_to_keep,
                show_bar=self._show_bar,
            )
        self._clock.restart()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._output is not None:
            self._output.close(has_failed=kind is not None)

    def timed(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Pass batches through and count the time spent waiting for them, from the first one on."""
        return self._clock.timed(batches)

    def __call__(self, scalars: dict[str, torch.Tensor | float], valid: torch.Tensor) -> None:
        """Take note of a finished step; log, validate and save when it is time."""
        self._losses.append(scalars["train/caption_loss"])
        self._num_invalid.append((~valid).sum())
        num_done, is_last = self._state.step, self._state.step == self._state.num_steps
        if num_done % self._job.log_every == 0 or is_last:
            self._log(scalars)
        if num_done % self._job.checkpoint_every == 0 or is_last:
            self._validate_and_save()

    def _log(self, scalars: dict[str, torch.Tensor | float]) -> None:
        step, num_steps = self._state.step - 1, len(self._losses)
        loss = float(torch.stack(self._losses).mean())
        require_finite("train/caption_loss", loss, step)
        num_invalid = gather_plain(torch.stack(self._num_invalid).sum()[None]).sum() / num_steps
        throughput = self._clock.throughput(num_steps, self._state.global_batch_size)
        if self._rank == 0:
            record = {name: float(value) for name, value in scalars.items()} | {
                "train/caption_loss": loss,
                "train/epoch": self._state.samples_seen / self._num_clips,
                "train/samples_seen": self._state.samples_seen,
                **throughput,
                "data/num_invalid": float(num_invalid),
            }
            self._output.metrics.write(step, record)
            self._output.progress.tell(self._state.step, loss=loss, clips_per_s=throughput["throughput/clips_per_s"])
        self._losses, self._num_invalid = [], []
        self._clock.restart()

    def _validate_and_save(self) -> None:
        with self._clock.paused():  # validation is not training time
            metrics = self._validation.metrics(self._state)
            if self._rank == 0:
                if metrics:
                    self._output.metrics.write(self._state.step - 1, metrics)
                self._save(metrics)
            ray.train.report({"step": self._state.step, **metrics})

    def _save(self, metrics: dict[str, float]) -> None:
        # The best checkpoint is that of the highest value.
        value = -metrics["val/caption_loss"] if metrics else None
        selection = None if value is None else {"metric": "-val/caption_loss", "value": value}
        narrator_input = NarratorInput(prompt=self._job.prompt, grid=self._job.grid)

        def capture() -> WriteFiles:
            state = capture_state(self._state, validation=metrics, buffers=self._buffers)

            def write(staged: Path) -> None:
                write_state(state, staged, narrator_input)
                (staged / "config.yaml").write_text(config_to_yaml(self._job))

            return write

        self._output.checkpoints.save(self._state.step, capture, selection=selection)
