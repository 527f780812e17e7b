"""What a train worker reads of the corpus: the reader that makes any batch of its run, and the meta batches."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.batch import PADDING_ROW, WEIGHT_INPUTS, ClipBatch, pad_batch, to_clip_batch
from mama_ray.data.classes.assemble import ClassAssembler, Sentences
from mama_ray.data.index import clips_per_shard
from mama_ray.data.plan import BatchPlan, EpochPlan, PlanConfig, local_batch_size
from mama_ray.data.questions.assemble import AssemblesClips, QuestionAssembler
from mama_ray.data.questions.plan import QuestionPlan, QuestionPlanConfig
from mama_ray.data.region_features.assemble import FeatureAssembler
from mama_ray.data.second_captions import SecondCaptions
from mama_ray.data.sources import FirstCaptions, SourceAssembler, SourcePlan
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.data.weight_columns import ColumnAssembler, DrawnSource
from mama_ray.models.asking import asks_like
from mama_ray.models.settings import QuestionForm
from mama_ray.orchestration.cluster.row_server import ServedRows
from mama_ray.storage.places import Place


@dataclass(frozen=True)
class Asked:
    """What a decode task needs beside, to make batches of (clip, question) pairs."""

    pairs: ray.ObjectRef
    model_type: str
    has_own_head: bool
    global_batch_size: int
    plan: QuestionPlanConfig
    form: QuestionForm = "release"


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
    asked: Asked | None = None
    features: str | None = None
    """Table of features that a model reads instead of pixels, and how many regions of a frame."""
    num_regions: int = 0
    classes: tuple[tuple[str, int], ...] = ()
    """How many classes there are of each kind that is read."""
    relevant_above: float | None = None
    """Relevance from which on a text may stand in the place of a clip's own."""
    flip: float = 0.0
    """Share of training's clips that are mirrored."""
    shares: tuple[tuple[str, float], ...] = ()
    """Of the caption sources, where rows are samples of one source each."""
    generated_apart: bool = False
    """Whether a clip is learned from by its own text and, where it has one, a generated caption."""
    drawn_source: DrawnSource | None = None
    """The column that tells a weight net of which source the drawn caption is."""

    def assembler(self) -> AssemblesClips:
        """Build the assembler of training's rows: its clips, with questions its pairs, with shares its samples."""
        if self.asked is not None:
            return self.pairs(self.table, self.asked.pairs)
        if not self.shares:
            return self.labelled(self.table)
        plan = _source_plan_of(self.table, self.shares, self.plan)
        of_sources = {source: self.labelled(self.table, {source: 1.0}) for source in plan.sources}
        return SourceAssembler(of_sources, plan.num_clips)

    def meta_clips(self, table: ray.ObjectRef) -> AssemblesClips:
        """Build the assembler of the meta-set's clips, which have all that training's have."""
        clips = self.labelled(table)
        return FirstCaptions(clips, ray.get(table)) if self.shares else clips

    def labelled(self, table: ray.ObjectRef, probabilities: dict[str, float] | None = None) -> AssemblesClips:
        """Build the assembler of a table's clips, with their classes where these are read, and their columns for a
        weight net; `probabilities` of caption sources come in the place of the reader's."""
        clips = self._with_columns(table, probabilities)
        if self.generated_apart:
            clips = SecondCaptions(clips, ray.get(table), self.tokenizer(), seed=self.seed)
        if not self.classes:
            return clips
        sentences = None if self.relevant_above is None else _sentences_of(self.table, self.classes)
        return ClassAssembler(
            clips,
            ray.get(table),
            dict(self.classes),
            self.tokenizer(),
            sentences=sentences,
            relevant_above=self.relevant_above or 0.0,
            flip=self.flip,
            seed=self.seed,
        )

    def _with_columns(self, table: ray.ObjectRef, probabilities: dict[str, float] | None) -> AssemblesClips:
        clips, rows = self.clips(table, probabilities), ray.get(table)
        if WEIGHT_INPUTS not in rows.column_names:
            return clips
        drawn_by: dict[str, Any] = {"probabilities": probabilities or self.caption_probabilities}
        drawn_by |= {"joins": self.joins_captions, "apart": self.generated_apart}
        return ColumnAssembler(clips, rows, self.drawn_source, seed=self.seed, **drawn_by)

    def pairs(self, table: ray.ObjectRef, pairs: ray.ObjectRef) -> QuestionAssembler:
        """Build the assembler of the pairs of a table's clips and their questions."""
        assert self.asked is not None
        how = {"has_own_head": self.asked.has_own_head, "form": self.asked.form}
        ask = asks_like(self.asked.model_type, self.tokenizer(), **how)
        return QuestionAssembler(self.labelled(table), ray.get(pairs), ask)

    def clips(
        self, table: ray.ObjectRef, probabilities: dict[str, float] | None = None
    ) -> ClipAssembler | FeatureAssembler:
        """Build the assembler of a table's clips; it is mapped from shared memory, not copied."""
        texts: dict[str, Any] = {
            "tokenizer": self.tokenizer(),
            "caption_probabilities": probabilities or self.caption_probabilities,
            "joins_captions": self.joins_captions,
            "generated_apart": self.generated_apart,
            "seed": self.seed,
        }
        if self.features is not None:
            return FeatureAssembler(ray.get(table), self.features, self.num_regions, **texts)
        return ClipAssembler(
            Place.of(self.shards),
            ray.get(table),
            num_frames=self.num_frames,
            transform=self.transform,
            decode=self.decode,
            **texts,
        )

    def tokenizer(self) -> Tokenizer:
        """Return the run's tokenizer, built once per process."""
        return tokenizer_of(self.tokenizer_files)

    def epoch_plan(self) -> BatchPlan:
        """Return the plan of training's rows, built once per process."""
        if self.asked is not None:
            return _question_plan_of(self.asked.pairs, self.asked.global_batch_size, self.asked.plan)
        if self.shares:
            return _source_plan_of(self.table, self.shares, self.plan)
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


def question_meta_batches(
    meta_pairs: QuestionAssembler,
    *,
    first_meta_step: int,
    batch_size: int,
    rank: int,
    world_size: int,
    seed: int,
) -> Iterator[ClipBatch]:
    """Yield this rank's part of an endless, shuffled stream of meta batches of pairs, as `meta_batches` does of clips;
    a batch has one question of a clip as far as clips reach."""
    size = local_batch_size(batch_size, world_size)
    config = QuestionPlanConfig(seed=seed, questions_per_clip=1)
    plan = QuestionPlan(meta_pairs.pairs["row"].to_numpy(), batch_size, config)
    step = first_meta_step
    while True:
        pairs, _ = plan.local_batch(step, batch_size, rank, world_size)
        pairs = pairs[pairs != PADDING_ROW]
        yield to_clip_batch(pad_batch(meta_pairs.assemble(np.sort(pairs)), size))
        step += 1


@lru_cache(maxsize=2)
def tokenizer_of(files: ray.ObjectRef) -> Tokenizer:
    """Return the tokenizer of a run's files."""
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as directory:
        for name, content in ray.get(files).items():
            (Path(directory) / name).write_bytes(content)
        return Tokenizer.from_directory(directory)


@lru_cache(maxsize=2)
def _question_plan_of(pairs: ray.ObjectRef, global_batch_size: int, config: QuestionPlanConfig) -> QuestionPlan:
    return QuestionPlan(ray.get(pairs)["row"].to_numpy(), global_batch_size, config)


@lru_cache(maxsize=2)
def _plan_of(table: ray.ObjectRef, config: PlanConfig) -> EpochPlan:
    clips: pa.Table | ServedRows = ray.get(table)
    counts = clips_per_shard(clips) if isinstance(clips, pa.Table) else clips.known().clips_per_shard.tolist()
    return EpochPlan(counts, config)


@lru_cache(maxsize=2)
def _source_plan_of(table: ray.ObjectRef, shares: tuple[tuple[str, float], ...], config: PlanConfig) -> SourcePlan:
    clips: pa.Table | ServedRows = ray.get(table)
    known = clips if isinstance(clips, pa.Table) else (len(clips), clips.known().sources)
    return SourcePlan(known, dict(shares), config)


@lru_cache(maxsize=2)
def _sentences_of(table: ray.ObjectRef, classes: tuple[tuple[str, int], ...]) -> Sentences:
    return Sentences(ray.get(table), dict(classes))
