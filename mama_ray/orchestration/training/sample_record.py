"""Writes down what became of single samples: loss, weight and cosine of each clip of a recorded step.

Every worker keeps its own clips' numbers on the device they are on until metrics are read anyway, and writes them as
one file when a checkpoint is due, before that is published (`auditing/record.py`).
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import ray
import torch
from torch import Tensor

from mama_ray.auditing.record import RECORD_SCHEMA, RecordPart, remove_parts_after, write_part
from mama_ray.data.plan import PADDING_ROW, BatchPlan, local_batch_size, local_places
from mama_ray.objectives.gather import gather_plain
from mama_ray.orchestration.cluster.row_server import ServedRows
from mama_ray.orchestration.runs.worker import Worker
from mama_ray.orchestration.training.clip_reader import ClipReader
from mama_ray.orchestration.training.data import RunData
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.questions import AskedData
from mama_ray.orchestration.training.settings import RecordConfig
from mama_ray.training.loop import StepRecord


class SampleRecorder:
    """Collects the records of a worker's steps and writes them, a part for each stretch between checkpoints.

    Args:
        config: which steps.
        worker: whose part of the batches it is, and the run's folder.
        plan: of the samples; says the epoch of each.
        clips_of: from samples to rows of `clips`.
        clips: the training split, of which clip_id is read.
        first_step: where the run stands.
        global_batch_size: clips of a step over all workers.
        num_parts: micro-batches, which decide how many clips a worker has.
        has_texts: whether the cosine means anything.
    """

    def __init__(
        self,
        config: RecordConfig,
        worker: Worker,
        plan: BatchPlan,
        clips_of: Callable[[np.ndarray], np.ndarray],
        clips: pa.Table | ServedRows,
        *,
        first_step: int,
        global_batch_size: int,
        num_parts: int = 1,
        has_texts: bool = True,
    ) -> None:
        self._config, self._worker, self._plan = config, worker, plan
        self._clips_of, self._clips = clips_of, clips
        self._first_step, self._batch_size, self._num_parts = first_step, global_batch_size, num_parts
        self._has_texts = has_texts
        self._waiting: list[tuple[int, tuple[Tensor, Tensor, Tensor, Tensor | float]]] = []
        self._tables: list[pa.Table] = []
        if worker.rank == 0:  # before this worker's first collective, which the others wait for
            remove_parts_after(worker.run_folder, first_step)

    def add(self, record: StepRecord) -> None:
        """Take in a finished step; nothing leaves its device."""
        every, done = self._config.every, record.step * self._batch_size
        if every and record.step % every == 0 and done >= self._config.from_epoch * self._plan.num_clips:
            size = local_batch_size(self._batch_size, self._worker.world_size, num_parts=self._num_parts)
            own = slice(self._worker.rank * size, (self._worker.rank + 1) * size)
            cosines = record.losses.new_zeros(size) if record.cosines is None else record.cosines
            count = len(record.losses[own])  # padding comes behind
            values = torch.stack([record.losses[own].float(), record.weights[own].float(), cosines[:count].float()])
            tensors = record.rows[:count], record.valid[:count], values, record.scalars["data/num_invalid"]
            self._waiting.append((record.step, tensors))

    def settle(self) -> None:
        """Bring what waits on the device into memory: where numbers are read anyway."""
        for step, (rows, valid, values, num_invalid) in self._waiting:
            arrays = rows.cpu().numpy(), valid.cpu().numpy(), values.cpu().numpy()
            self._tables.append(self._table(step, *arrays, num_invalid=int(num_invalid)))
        self._waiting = []

    def write(self, stop: int) -> None:
        """Write the part of the steps before `stop`; every rank must call it, and returns when all have written."""
        if not self._config.every:
            return
        self.settle()
        part = RecordPart(self._first_step, stop, self._worker.rank, self._worker.world_size)
        table = pa.concat_tables([RECORD_SCHEMA.empty_table(), *self._tables]).combine_chunks()
        write_part(self._worker.run_folder, part, table)
        self._first_step, self._tables = stop, []
        gather_plain(torch.ones(1, device=self._worker.device))

    def _table(
        self, step: int, rows: np.ndarray, valid: np.ndarray, values: np.ndarray, *, num_invalid: int
    ) -> pa.Table:
        planned, epochs = self._plan.global_batch(step, self._batch_size)
        num_valid = int((planned != PADDING_ROW).sum()) - num_invalid
        own = local_places(self._batch_size, self._worker.rank, self._worker.world_size, num_parts=self._num_parts)
        is_row = rows != PADDING_ROW
        rows, is_missing, values = rows[is_row], ~valid[is_row], values[:, is_row]
        samples = planned[own][: len(rows)]
        assert np.array_equal(
            self._clips_of(samples), self._clips_of(rows)
        )  # texts of one source have their clips' rows
        has_no_cosine = is_missing if self._has_texts else np.ones(len(rows), bool)
        columns = {
            "step": np.full(len(rows), step, np.int32),
            "epoch": epochs[own][: len(rows)].astype(np.int32),
            "sample": samples.astype(np.int64),
            "clip_id": self._clips.take(pa.array(self._clips_of(samples)))["clip_id"].cast(pa.string()),
            "loss": pa.array(values[0], mask=is_missing),
            "weight": pa.array(values[1] * num_valid, mask=is_missing),
            "cosine": pa.array(values[2], mask=has_no_cosine),
        }
        return pa.table(columns, schema=RECORD_SCHEMA)


def build_sample_recorder(
    job: TrainJob, worker: Worker, data: RunData, reader: ClipReader, asked: AskedData | None, *, first_step: int
) -> SampleRecorder:
    """Make a worker's recorder of the run's samples, which may be questions, or texts of one source each."""
    clips: pa.Table | ServedRows = ray.get(data.train)
    return SampleRecorder(
        job.record,
        worker,
        reader.epoch_plan(),
        clips_of_samples(data, asked),
        clips.select(["clip_id"]),
        first_step=first_step,
        global_batch_size=job.global_batch_size,
        num_parts=job.num_micro_batches,
        has_texts=job.learns_contrast,
    )


def clips_of_samples(data: RunData, asked: AskedData | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return what tells the rows of training clips that samples are of: clips, questions or texts of one source."""
    num_clips = len(ray.get(data.train))
    pairs = None if asked is None else ray.get(asked.train)["row"].to_numpy()

    def clips_of(samples: np.ndarray) -> np.ndarray:
        return samples % num_clips if pairs is None else pairs[samples]

    return clips_of
