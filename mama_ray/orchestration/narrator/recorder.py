"""What a worker takes note of after each step of a narrator's training: loss and unreadable clips."""

from functools import partial
from pathlib import Path

import torch

from mama_ray.captioning.narrator.settings import NarratorInput
from mama_ray.config import config_to_yaml
from mama_ray.models.host_copy import Buffers
from mama_ray.objectives.gather import gather_plain
from mama_ray.orchestration.narrator.captioned import as_record
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.state import NarratorState, capture_state, write_state
from mama_ray.orchestration.narrator.validation import NarratorValidation
from mama_ray.orchestration.runs.checkpoint_writer import WriteFiles
from mama_ray.orchestration.runs.recording import Recording
from mama_ray.training.state import require_finite, require_valid_clips


class NarratorRecorder:
    """Called with the scalars of each step, inside the worker's recording."""

    def __init__(
        self, recording: Recording, job: NarratorJob, state: NarratorState, validation: NarratorValidation
    ) -> None:
        self._recording, self._job, self._state, self._validation = recording, job, state, validation
        self._losses: list[torch.Tensor] = []
        self._num_invalid: list[torch.Tensor] = []
        self._buffers: Buffers = {}

    def __call__(self, scalars: dict[str, torch.Tensor | float], valid: torch.Tensor) -> None:
        """Take note of a finished step; log, validate and save when it is time."""
        self._losses.append(torch.as_tensor(scalars["train/caption_loss"]))
        self._num_invalid.append((~valid).sum())
        is_time_to_log, is_time_to_save = self._recording.is_time_to_log(), self._recording.is_time_to_save()
        if is_time_to_log or is_time_to_save:
            self._require_sound(scalars)
        if is_time_to_log:
            self._log(scalars)
        if is_time_to_save:
            self._validate_and_save()

    def _require_sound(self, scalars: dict[str, torch.Tensor | float]) -> None:
        """Raise UserError before anything of a window is written or saved that learned from nothing, or nonsense."""
        last_step = self._state.step - 1
        require_finite("train/caption_loss", float(torch.stack(self._losses).mean()), last_step)
        require_finite("train/gradient_norm", float(scalars["train/gradient_norm"]), last_step)
        num_invalid = gather_plain(torch.stack(self._num_invalid)[None]).sum(dim=0)
        require_valid_clips((self._state.global_batch_size - num_invalid).tolist(), last_step)

    def _log(self, scalars: dict[str, torch.Tensor | float]) -> None:
        num_steps = len(self._losses)
        loss = float(torch.stack(self._losses).mean())
        num_invalid = gather_plain(torch.stack(self._num_invalid).sum()[None]).sum() / num_steps
        record = {name: float(value) for name, value in scalars.items()} | {"train/caption_loss": loss}
        record |= {**self._recording.measures(num_steps), "data/num_invalid": float(num_invalid)}
        self._recording.log(record, loss=loss)
        self._losses, self._num_invalid = [], []

    def _validate_and_save(self) -> None:
        with self._recording.paused():
            metrics = self._validation.metrics(self._state)
            # The best checkpoint is that of the highest value.
            value = -metrics["val/caption_loss"] if metrics else None
            selection = None if value is None else {"metric": "-val/caption_loss", "value": value}
            self._recording.save(metrics, partial(self._capture, metrics), selection=selection, curves={})

    def _capture(self, metrics: dict[str, float]) -> WriteFiles:
        scores = self._validation.scores
        captions = None if scores is None else as_record(scores)
        state = capture_state(self._state, validation=metrics, captions=captions, buffers=self._buffers)
        narrator_input = NarratorInput(prompt=self._job.prompt, grid=self._job.grid)

        def write(staged: Path) -> None:
            write_state(state, staged, narrator_input)
            (staged / "config.yaml").write_text(config_to_yaml(self._job))

        return write
