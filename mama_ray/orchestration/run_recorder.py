"""What a worker does after each step: count, log, validate, save. Passed to `training.loop.train` as its `report`.

Rank 0 writes; every rank takes part in validation and in `ray.train.report`, which is a barrier.
"""

import logging
import resource
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.fs as pafs
import ray
import ray.train
import torch

from mama_ray.data.batch import ClipBatch
from mama_ray.models.pretrained import save_pretrained
from mama_ray.orchestration.checkpoint_store import publish_checkpoint, retain_checkpoints, staging_directory
from mama_ray.orchestration.clip_stream import ClipReader
from mama_ray.orchestration.progress import Progress
from mama_ray.orchestration.train_data import RunData, truth_kinds
from mama_ray.orchestration.validation import ValidationSet
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.training.checkpoint import save_state, write_manifest
from mama_ray.training.diagnosis import StepWindow, weight_curve
from mama_ray.training.loop import StepRecord
from mama_ray.training.state import TrainState, require_finite

if TYPE_CHECKING:
    from mama_ray.orchestration.train import TrainJob

logger = logging.getLogger(__name__)

SELECTION_METRIC = "val/t2v_R@1"


class RunRecorder:
    """Records one worker's run; a context manager around the loop."""

    def __init__(
        self,
        job: "TrainJob",
        state: TrainState,
        data: RunData,
        validation: ValidationSet,
        reader: ClipReader,
        filesystem: pafs.FileSystem,
        run_path: str,
        *,
        rank: int,
        world_size: int,
        show_bar: bool = False,
    ):
        self._job, self._state, self._validation, self._reader = job, state, validation, reader
        self._filesystem, self._run_path = filesystem, run_path
        self._rank, self._world_size = rank, world_size
        self._window = StepWindow()
        self._last_losses: torch.Tensor | None = None
        self._data_wait_s = 0.0
        self._window_start = time.perf_counter()
        self._step_s: float | None = None  # of the last logged window; none before the first
        self._num_quarantined = 0
        self._warned: set[str] = set()
        self._kinds = truth_kinds(ray.get(data.train)) if rank == 0 else None
        self._show_bar = show_bar
        self._writer: MetricsWriter | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> "RunRecorder":
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

    def timed(self, batches: Iterable[ClipBatch]) -> Iterator[ClipBatch]:
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

    def __call__(self, record: StepRecord) -> None:
        """Take note of a finished step; log, validate and save when it is time."""
        self._window.add(record)
        self._last_losses = record.losses
        num_done, is_last = self._state.step, self._state.step == self._state.num_steps
        if num_done % self._job.log_every == 0 or is_last:
            self._log(record)
        if num_done % self._job.checkpoint_every == 0 or is_last:
            self._validate_and_save(record.step)

    def _log(self, record: StepRecord) -> None:
        scalars = self._window.means()
        require_finite("train/loss", scalars["train/loss"], record.step)
        seconds = time.perf_counter() - self._window_start
        num_steps = self._window.num_steps
        scalars |= {
            "train/epoch": self._state.samples_seen / self._reader.epoch_plan().num_clips,
            "train/samples_seen": self._state.samples_seen,
            "throughput/clips_per_s": num_steps * self._state.global_batch_size / seconds,
            "throughput/step_s": seconds / num_steps,
            "throughput/data_wait_s": self._data_wait_s / num_steps,
            "throughput/peak_memory_gib": _peak_memory_gib(),
        }
        self._step_s = seconds / num_steps
        self._num_quarantined += round(scalars["data/num_invalid"] * num_steps)
        scalars["data/num_quarantined"] = self._num_quarantined
        if self._rank == 0:
            scalars |= self._weights_by_kind()
            self._warn_once(record.step, self._window.warnings(scalars))
            self._writer.write(record.step, scalars)
            self._progress.tell(
                self._state.step,
                loss=scalars["train/unweighted_loss"],
                clips_per_s=scalars["throughput/clips_per_s"],
            )
        self._window = StepWindow()
        self._data_wait_s, self._window_start = 0.0, time.perf_counter()

    def _warn_once(self, step: int, warnings: dict[str, str]) -> None:
        for kind, text in warnings.items():
            if kind not in self._warned:
                self._warned.add(kind)
                logger.warning("step %d: %s (told once; metrics.jsonl has every step)", step, text)

    def _weights_by_kind(self) -> dict[str, float]:
        """Mean weight (1 is uniform) of the clips whose captions are recorded as clean, wrong and so on."""
        if self._kinds is None:
            return {}
        rows, weights = self._window.rows_and_weights(self._global_rows)
        kinds = self._kinds[rows]
        return {f"weights/{kind}/mean": float(weights[kinds == kind].mean()) for kind in np.unique(kinds)}

    def _global_rows(self, step: int) -> np.ndarray:
        return self._reader.epoch_plan().global_batch(step, self._state.global_batch_size)[0]

    def _validate_and_save(self, step: int) -> None:
        start = time.perf_counter()
        metrics = self._validation.metrics(self._state.evaluated_model)
        if self._rank == 0:
            curve = weight_curve(self._state.weighting, self._last_losses)
            if metrics or curve:
                self._writer.write(step, metrics | curve)
            self._writer.flush()
            self._save(metrics)
        ray.train.report({"step": self._state.step, "throughput/step_s": self._step_s, **metrics})
        self._window_start += time.perf_counter() - start  # validation is not training time

    def _save(self, metrics: dict[str, float]) -> None:
        value = metrics.get(SELECTION_METRIC)
        selection = None if value is None else {"metric": SELECTION_METRIC, "value": value}
        with staging_directory(self._filesystem, self._run_path) as staged:
            save_pretrained(self._state.model, staged, tokenizer=self._reader.tokenizer())
            save_state(self._state, staged, selection=selection, extra={"validation": metrics})
            (staged / "config.yaml").write_text(self._job.to_yaml())
            write_manifest(staged, step=self._state.step, selection=selection)
            publish_checkpoint(self._filesystem, self._run_path, staged, self._state.step)
        retain_checkpoints(self._filesystem, self._run_path, self._job.num_checkpoints_to_keep)


def _peak_memory_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
