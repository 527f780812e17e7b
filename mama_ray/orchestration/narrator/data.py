"""What a narrator's run reads: clips with a caption, split into train and val, and the files of its tokenizer.

Everything here runs in one remote task, so the driver holds references and a few counts, whatever the size of the
corpus.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import ray

from mama_ray.captioning.narrator.kind import Files, Labels, NarratorFacts, NarratorSettings
from mama_ray.captioning.narrator.kinds import KINDS, kind_of_folder, kind_of_preset
from mama_ray.captioning.narrator.samples import SampleAssembler
from mama_ray.data.contents import hash_clips
from mama_ray.data.index import clips_per_shard, hash_ids, read_index, select_captioned, select_split
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.data.shard_check import check_shards
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.narrator.job import NarratorDataConfig, NarratorJob
from mama_ray.orchestration.narrator.sources import refuse_unused, settings_at_hand
from mama_ray.storage.places import Place, storage_errors

_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "captions", "truth")
_NUM_TOKENIZER_CLIPS = 50_000  # enough to train a small vocabulary on; the rest adds nothing


@dataclass(frozen=True)
class NarratorData:
    """References to the splits' tables and the tokenizer's files, with what is known of the narrator."""

    train: ray.ObjectRef
    val: ray.ObjectRef
    files: ray.ObjectRef
    facts: NarratorFacts
    summary: dict


@dataclass(frozen=True)
class SampleReader:
    """What a decode task needs to make any batch of the run; picklable and small."""

    data: NarratorData
    shards: str
    settings: NarratorSettings
    config: NarratorDataConfig
    seed: int

    @classmethod
    def of(cls, job: NarratorJob, data: NarratorData) -> "SampleReader":
        """Make the reader of a job whose shards are known."""
        assert job.shards is not None  # the driver has put in where the embedded ones are
        settings = NarratorSettings(job.model, job.prompt, job.grid, job.frames)
        return cls(data, job.shards, settings, job.data, job.seed)

    def assembler(self, table: ray.ObjectRef | None = None) -> SampleAssembler:
        """Build the assembler of `table` (default: training's); it is mapped from shared memory, not copied."""
        facts = self.data.facts
        return SampleAssembler(
            Place.of(self.shards),
            ray.get(table or self.data.train),
            _labels_of(self.data.files, facts, self.config.max_caption_tokens),
            KINDS[facts.kind].show(facts, self.settings, self.config.decode),
            caption_probabilities=self.config.captions,
            seed=self.seed,
        )

    def epoch_plan(self) -> EpochPlan:
        """Return the plan of the table's rows, built once per process."""
        return _plan_of(self.data.train, self.config.plan.model_copy(update={"seed": self.seed}))


def load_narrator_data(job: NarratorJob, *, checkpoint: str | None) -> NarratorData:
    """Check the shards, load the splits and what is known of the narrator; raises UserError for anything a user can put
    right.

    checkpoint: of a run that goes on; None looks at what it starts from.
    """
    *stored, facts = _load.options(num_returns=4).remote(job, checkpoint)
    return NarratorData(*stored, **result_of(facts, *stored))


@ray.remote(num_cpus=0.5)
def _load(job: NarratorJob, checkpoint: str | None) -> tuple[pa.Table, pa.Table, Files, dict]:
    assert job.shards is not None  # the driver has put in where the embedded ones are
    folder = Place.of(job.shards)
    with storage_errors(job.shards):
        index = read_index(folder)
        check_shards(folder, index)
    splits = {split: select_split(index, split).select(_COLUMNS) for split in ("train", "val")}
    chosen = job.data.captions
    tables = {split: select_captioned(table, chosen) for split, table in splits.items()}
    if not len(tables["train"]):
        raise UserError(
            "no clips to learn from",
            got=f"{len(index)} clips in {job.shards}, {len(splits['train'])} of split train",
            wanted="clips of split train with a caption" + (f" of {sorted(chosen)}" if chosen is not None else ""),
        )
    files, facts = _describe(job, checkpoint, tables["train"])
    summary = {
        "num_clips": {split: len(table) for split, table in tables.items()},
        "num_uncaptioned": {split: len(splits[split]) - len(table) for split, table in tables.items()},
        "hash_of_ids": {split: hash_ids(table["clip_id"].to_pylist()) for split, table in tables.items()},
        "contents": {"shards": hash_clips(splits)},
    }
    return tables["train"], tables["val"], files, {"facts": facts, "summary": summary}


def _describe(job: NarratorJob, checkpoint: str | None, train: pa.Table) -> tuple[Files, NarratorFacts]:
    def texts() -> Iterable[str]:
        captions = train["captions"].slice(0, _NUM_TOKENIZER_CLIPS).to_pylist()
        return (caption["text"] for clip in captions for caption in clip)

    source = checkpoint or job.model.pretrained
    if source is None:
        kind = kind_of_preset(job.model.preset)
        refuse_unused(job, KINDS[kind].UNUSED, kind)
        with settings_at_hand(job) as settings:
            return KINDS[kind].describe(None, settings, texts)
    with model_folder(source) as directory:
        kind = kind_of_folder(directory)
        refuse_unused(job, KINDS[kind].UNUSED, kind)
        settings = NarratorSettings(job.model, job.prompt, job.grid, job.frames)
        return KINDS[kind].describe(directory, settings, texts)


@lru_cache(maxsize=2)
def _labels_of(files: ray.ObjectRef, facts: NarratorFacts, max_tokens: int) -> Labels:
    return KINDS[facts.kind].labels(facts, ray.get(files), max_tokens=max_tokens)  # a tokenizer takes long to read


@lru_cache(maxsize=2)
def _plan_of(table: ray.ObjectRef, config: PlanConfig) -> EpochPlan:
    return EpochPlan(clips_per_shard(ray.get(table)), config)
