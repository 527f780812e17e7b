"""What a worker does after each step of a narrator's training: count, log, validate, save.

Rank 0 writes; every rank takes part in validation and in `ray.train.report`, which is a barrier.
"""

import resource
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import pyarrow.fs as pafs
import ray.train
import torch

from mama_ray.captioning.narrator import NarratorInput
from mama_ray.config import config_to_yaml
from mama_ray.objectives.gather import gather_plain
from mama_ray.orchestration.checkpoint_store import publish_checkpoint, retain_checkpoints, staging_directory
from mama_ray.orchestration.narrator_state import NarratorState, save_state
from mama_ray.orchestration.narrator_validation import NarratorValidation
from mama_ray.orchestration.progress import Progress
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.training.checkpoint import write_manifest
from mama_ray.training.state import require_finite

if TYPE_CHECKING:
    from mama_ray.orchestration.narrator import NarratorJob

_Batch = TypeVar("_Batch")


class NarratorRecorder:
    """Records one worker's run; a context manager around the loop."""

    def __init__(
        self,
        job: "NarratorJob",
        state: NarratorState,
        validation: NarratorValidation,
        num_clips: int,
        filesystem: pafs.FileSystem,
        run_path: str,
        *,
        rank: int,
        show_bar: bool,
    ) -> None:
        self._job, self._state, self._validation, self._num_clips = job, state, validation, num_clips
        self._filesystem, self._run_path = filesystem, run_path
        self._rank, self._show_bar = rank, show_bar
        self._losses: list[torch.Tensor] = []
        self._num_invalid: list[torch.Tensor] = []
        self._data_wait_s = 0.0
        self._window_start = time.perf_counter()
        self._writer: MetricsWriter | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> "NarratorRecorder":
        if self._rank == 0:
            self._writer = MetricsWriter(self._filesystem, self._run_path, start_step=self._state.step)
            steps = {"num_steps": self._state.num_steps, "first_step": self._state.step}
            self._progress = Progress(self._job.run, **steps, show_bar=self._show_bar)
        self._window_start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._rank == 0:
            self._progress.close()
            self._writer.close()

    def timed(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Pass batches through and count the time spent waiting for them, from the first one on."""
        iterator = iter(batches)
        is_first = True
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._data_wait_s += time.perf_counter() - start
            if is_first:  # starting the decode processes is no part of a step
                self._data_wait_s, self._window_start, is_first = 0.0, time.perf_counter(), False
            yield batch

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
        seconds = time.perf_counter() - self._window_start
        clips_per_s = num_steps * self._state.global_batch_size / seconds
        if self._rank == 0:
            record = {name: float(value) for name, value in scalars.items()} | {
                "train/caption_loss": loss,
                "train/epoch": self._state.samples_seen / self._num_clips,
                "train/samples_seen": self._state.samples_seen,
                "throughput/clips_per_s": clips_per_s,
                "throughput/step_s": seconds / num_steps,
                "throughput/data_wait_s": self._data_wait_s / num_steps,
                "throughput/peak_memory_gib": _peak_memory_gib(),
                "data/num_invalid": float(num_invalid),
            }
            self._writer.write(step, record)
            self._progress.tell(self._state.step, loss=loss, clips_per_s=clips_per_s)
        self._losses, self._num_invalid = [], []
        self._data_wait_s, self._window_start = 0.0, time.perf_counter()

    def _validate_and_save(self) -> None:
        start = time.perf_counter()
        metrics = self._validation.metrics(self._state)
        if self._rank == 0:
            if metrics:
                self._writer.write(self._state.step - 1, metrics)
            self._writer.flush()
            self._save(metrics)
        ray.train.report({"step": self._state.step, **metrics})
        self._window_start += time.perf_counter() - start  # validation is not training time

    def _save(self, metrics: dict[str, float]) -> None:
        # The best checkpoint is that of the highest value.
        value = -metrics["val/caption_loss"] if metrics else None
        selection = None if value is None else {"metric": "-val/caption_loss", "value": value}
        narrator_input = NarratorInput(prompt=self._job.prompt, grid=self._job.grid)
        with staging_directory(self._filesystem, self._run_path) as staged:
            save_state(self._state, staged, narrator_input, validation=metrics)
            (staged / "config.yaml").write_text(config_to_yaml(self._job))
            write_manifest(staged, step=self._state.step, selection=selection)
            publish_checkpoint(self._filesystem, self._run_path, staged, self._state.step)
        retain_checkpoints(self._filesystem, self._run_path, self._job.num_checkpoints_to_keep)


def _peak_memory_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
