"""What a train worker reads of the corpus: the reader that makes any batch of its run, and the meta batches."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import ray

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.batch import ClipBatch, pad_batch, to_clip_batch
from mama_ray.data.index import clips_per_shard
from mama_ray.data.plan import EpochPlan, PlanConfig, local_batch_size
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.storage.places import Place


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
        folder = Place.of(self.shards)
        return ClipAssembler(
            folder,
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


@lru_cache(maxsize=2)
def _tokenizer_of(files: ray.ObjectRef) -> Tokenizer:
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as directory:
        for name, content in ray.get(files).items():
            (Path(directory) / name).write_bytes(content)
        return Tokenizer.from_directory(directory)


@lru_cache(maxsize=2)
def _plan_of(table: ray.ObjectRef, config: PlanConfig) -> EpochPlan:
    return EpochPlan(clips_per_shard(ray.get(table)), config)
