"""What a worker does after each step: count, log, validate, save. Passed to `training.loop.train` as its `report`.

Rank 0 writes; every rank takes part in validation and in `ray.train.report`, which is a barrier.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import ray
import ray.train
import torch

from mama_ray.data.batch import ClipBatch
from mama_ray.models.host_copy import Buffers
from mama_ray.models.pretrained import capture_pretrained, write_pretrained
from mama_ray.orchestration.cluster.exported_metrics import export_metrics
from mama_ray.orchestration.runs.checkpoint_writer import WriteFiles
from mama_ray.orchestration.runs.output import RunOutput
from mama_ray.orchestration.runs.step_clock import StepClock
from mama_ray.orchestration.training.clip_reader import ClipReader
from mama_ray.orchestration.training.data import RunData, truth_kinds
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.validation import ValidationSet
from mama_ray.storage.places import Place
from mama_ray.training.checkpoint import capture_state, write_state
from mama_ray.training.diagnosis import StepWindow, weight_curve
from mama_ray.training.loop import StepRecord
from mama_ray.training.state import TrainState, require_finite

logger = logging.getLogger(__name__)

SELECTION_METRIC = "val/t2v_R@1"


class RunRecorder:
    """Records one worker's run; a context manager around the loop."""

    def __init__(
        self,
        job: TrainJob,
        state: TrainState,
        data: RunData,
        validation: ValidationSet,
        reader: ClipReader,
        run_folder: Place,
        *,
        rank: int,
        world_size: int,
        show_bar: bool = False,
    ):
        self._job, self._state, self._validation, self._reader = job, state, validation, reader
        self._run_folder = run_folder
        self._rank, self._world_size = rank, world_size
        self._window = StepWindow()
        self._last_losses: torch.Tensor | None = None
        self._clock = StepClock()
        self._step_s: float | None = None  # of the last logged window; none before the first
        self._num_quarantined = 0
        self._warned: set[str] = set()
        self._kinds = truth_kinds(ray.get(data.train)) if rank == 0 else None
        self._show_bar = show_bar
        self._output: RunOutput | None = None
        self._buffers: Buffers = {}

    def __enter__(self) -> "RunRecorder":
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

    def timed(self, batches: Iterable[ClipBatch]) -> Iterator[ClipBatch]:
        """Pass batches through and count the time spent waiting for them, from the first one on."""
        return self._clock.timed(batches)

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
        num_steps = self._window.num_steps
        scalars |= {
            "train/epoch": self._state.samples_seen / self._reader.epoch_plan().num_clips,
            "train/samples_seen": self._state.samples_seen,
            **self._clock.throughput(num_steps, self._state.global_batch_size),
        }
        self._step_s = scalars["throughput/step_s"]
        self._num_quarantined += round(scalars["data/num_invalid"] * num_steps)
        scalars["data/num_quarantined"] = self._num_quarantined
        if self._rank == 0:
            scalars |= self._weights_by_kind()
            self._warn_once(record.step, self._window.warnings(scalars))
            self._output.metrics.write(record.step, scalars)
            export_metrics(self._job.run, scalars | {"run/step": self._state.step})
            self._output.progress.tell(
                self._state.step,
                loss=scalars["train/unweighted_loss"],
                clips_per_s=scalars["throughput/clips_per_s"],
            )
        self._window = StepWindow()
        self._clock.restart()

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
        with self._clock.paused():  # validation is not training time
            metrics = self._validation.metrics(self._state.evaluated_model)
            if self._rank == 0:
                curve = weight_curve(self._state.weighting, self._last_losses)
                if metrics or curve:
                    self._output.metrics.write(step, metrics | curve)
                self._save(metrics)
                export_metrics(self._job.run, metrics, {"run/checkpoints": 1})
            steps = {"step": self._state.step, "num_steps": self._state.num_steps}
            ray.train.report({**steps, "throughput/step_s": self._step_s, **metrics})

    def _save(self, metrics: dict[str, float]) -> None:
        value = metrics.get(SELECTION_METRIC)
        selection = None if value is None else {"metric": SELECTION_METRIC, "value": value}

        def capture() -> WriteFiles:
            model = capture_pretrained(self._state.model, self._buffers)
            state = capture_state(
                self._state, selection=selection, extra={"validation": metrics}, buffers=self._buffers
            )

            def write(staged: Path) -> None:
                write_pretrained(model, staged, tokenizer=self._reader.tokenizer())
                write_state(state, staged)
                (staged / "config.yaml").write_text(self._job.to_yaml())

            return write

        self._output.checkpoints.save(self._state.step, capture, selection=selection)
