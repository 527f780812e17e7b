"""The stream of training batches of one Train worker: a Ray Data pipeline over step numbers.

Its rows are step numbers, not clips: a decode task works out which clips its rank holds at that step (a pure function
of seed, epoch and index), reads their byte ranges and decodes them. So nothing about the corpus passes through the
driver or the trainer, the data cursor is the step, and `preserve_order` keeps the plan's order whatever finishes first.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import ray
import torch
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.batch import ClipBatch, pad_batch
from mama_ray.data.index import clips_per_shard
from mama_ray.data.plan import EpochPlan, PlanConfig, local_batch_size
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.decode import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.orchestration.cluster.placement import matches
from mama_ray.storage.places import filesystem_for

logger = logging.getLogger(__name__)

# A pipeline holds one block per step; long runs are cut into pipelines of this many steps.
_STEPS_PER_PIPELINE = 1024


class BatchAssembler(Protocol):
    """Makes the arrays of a batch from rows of the index; axis 0 of each is the clip."""

    def assemble(self, rows: np.ndarray, epochs: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays: a pure function of rows and epochs."""


class BatchReader(Protocol):
    """What a stream of batches wants of its reader, which must be small and picklable."""

    def epoch_plan(self) -> EpochPlan:
        """Return the order of the rows."""

    def assembler(self) -> BatchAssembler:
        """Return what makes a batch of rows."""


@dataclass(frozen=True)
class ClipReader:
    """What a decode task needs to make any batch of the run; picklable: a few hundred bytes, the table's reference."""

    table: ray.ObjectRef
    shards: str
    tokenizer_files: ray.ObjectRef
    num_frames: int
    transform: TransformConfig
    decode: DecodeConfig
    caption_probabilities: dict[str, float] | None
    joins_captions: bool
    seed: int
    plan: PlanConfig

    def assembler(self, table: ray.ObjectRef | None = None) -> ClipAssembler:
        """Build the assembler of `table` (default: training's); it is mapped from shared memory, not copied."""
        filesystem, directory = filesystem_for(self.shards)
        return ClipAssembler(
            filesystem,
            directory,
            ray.get(table or self.table),
            self.tokenizer(),
            self.num_frames,
            self.transform,
            decode=self.decode,
            caption_probabilities=self.caption_probabilities,
            joins_captions=self.joins_captions,
            seed=self.seed,
        )

    def tokenizer(self) -> Tokenizer:
        """Return the run's tokenizer, built once per process."""
        return _tokenizer_of(self.tokenizer_files)

    def epoch_plan(self) -> EpochPlan:
        """Return the plan of the table's rows, built once per process."""
        return _plan_of(self.table, self.plan)


def stream_batches(
    reader: ClipReader,
    *,
    first_step: int,
    num_steps: int,
    global_batch_size: int,
    rank: int,
    world_size: int,
    num_decode_cpus: float,
    num_parts: int = 1,
    decode_labels: Mapping[str, str] | None = None,
) -> Iterator[ClipBatch]:
    """Yield this rank's batches of steps first_step .. num_steps - 1 in order, each a multiple of num_parts clips."""
    stream = stream_arrays(
        reader,
        first_step=first_step,
        num_steps=num_steps,
        global_batch_size=global_batch_size,
        rank=rank,
        world_size=world_size,
        num_decode_cpus=num_decode_cpus,
        num_parts=num_parts,
        decode_labels=decode_labels,
    )
    return map(to_clip_batch, stream)


def stream_arrays(
    reader: BatchReader,
    *,
    first_step: int,
    num_steps: int,
    global_batch_size: int,
    rank: int,
    world_size: int,
    num_decode_cpus: float,
    num_parts: int = 1,
    decode_labels: Mapping[str, str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield what the reader's assembler makes of this rank's rows of steps first_step .. num_steps - 1, in order.

    Every rank's arrays have `local_batch_size` rows; those that the global batch has no clips for are padding. Without
    num_decode_cpus one task at a time decodes, on whatever CPU has time for it. `decode_labels` are those of its nodes.
    """
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources(cpu=num_decode_cpus or None)
    context.enable_progress_bars = False
    local_size = local_batch_size(global_batch_size, world_size, num_parts=num_parts)

    def read_and_decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (step,) = batch["item"]
        slice_of_rank = (int(step), global_batch_size, rank, world_size)
        rows, epochs = reader.epoch_plan().local_batch(*slice_of_rank, num_parts=num_parts)
        return pad_batch(reader.assembler().assemble(rows, epochs), local_size)

    for start in range(first_step, num_steps, _STEPS_PER_PIPELINE):
        stop = min(start + _STEPS_PER_PIPELINE, num_steps)

        # Blocks that are there already: a read operator would run as a task of its own before every decode task.
        steps = ray.data.from_items(list(range(start, stop)), override_num_blocks=stop - start)
        dataset = steps.map_batches(
            read_and_decode,
            batch_size=1,
            num_cpus=1 if num_decode_cpus else 0,
            compute=TaskPoolStrategy(size=None if num_decode_cpus else 1),
            label_selector=dict(decode_labels or {}) or None,
        )
        dataset.set_name("train_clips")
        yield from dataset.iter_batches(batch_size=local_size, batch_format="numpy", prefetch_batches=2)


def decode_cpus(
    cpus_per_worker: float,
    world_size: int,
    *,
    num_runs: int = 1,
    worker_labels: Mapping[str, str] | None = None,
    decode_labels: Mapping[str, str] | None = None,
) -> float:
    """Return a worker's share of the CPUs that the workers of all runs leave over on the nodes that decode.

    0 where they leave less than one: a task that reserved a CPU would wait for ever, as on what a lost node has left. 1
    where there is no such node: a task that reserves a CPU makes an autoscaler start one.
    Ray Data (2.60) was seen to run half as many tasks at a time as a limit of two CPUs or more allows
    (benchmarks/data_loading.py), so the limit is twice the share.
    """
    num_workers = world_size * num_runs
    nodes = [node for node in ray.nodes() if node["Alive"] and matches(node["Labels"] or {}, decode_labels or {})]
    if not nodes:
        return 1.0
    spare = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
    if any(matches(node["Labels"] or {}, worker_labels or {}) for node in nodes):
        spare -= num_workers * cpus_per_worker
    if spare < 1.0:
        return 0.0
    share = max(1.0, spare // num_workers)
    return share if share == 1.0 else 2 * share


def meta_batches(
    meta_set: dict[str, np.ndarray],
    *,
    first_meta_step: int,
    batch_size: int,
    rank: int,
    world_size: int,
    seed: int,
) -> Iterator[ClipBatch]:
    """Yield this rank's part of an endless, shuffled stream of meta batches from the replicated, decoded meta-set; the
    ranks' parts are equally long, with padding where the batch does not divide."""
    size = local_batch_size(batch_size, world_size)
    plan = EpochPlan([len(meta_set["rows"])], PlanConfig(seed=seed))
    step = first_meta_step
    while True:
        rows, _ = plan.local_batch(step, batch_size, rank, world_size)
        yield to_clip_batch(pad_batch({name: values[rows] for name, values in meta_set.items()}, size))
        step += 1


def to_clip_batch(arrays: dict[str, np.ndarray]) -> ClipBatch:
    """Wrap arrays as tensors; those from shared memory are read-only and must be copied before torch may own them."""
    tensors = {name: torch.from_numpy(np.array(arrays[name])) for name in ("frames", "token_ids", "rows", "valid")}
    return ClipBatch(**tensors)


@lru_cache(maxsize=2)
def _tokenizer_of(files: ray.ObjectRef) -> Tokenizer:
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as directory:
        for name, content in ray.get(files).items():
            (Path(directory) / name).write_bytes(content)
        return Tokenizer.from_directory(directory)


@lru_cache(maxsize=2)
def _plan_of(table: ray.ObjectRef, config: PlanConfig) -> EpochPlan:
    return EpochPlan(clips_per_shard(ray.get(table)), config)
