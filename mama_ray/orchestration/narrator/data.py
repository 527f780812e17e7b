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
from mama_ray.data.clip import SPLITS
from mama_ray.data.contents import hash_clips, hash_ids_of
from mama_ray.data.index import clips_per_shard
from mama_ray.data.index_rows import Chosen, IndexRows, check_index
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.data.row_facts import facts_of, with_caption
from mama_ray.data.sources import tell_absent
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.cluster.row_server import ServedRows
from mama_ray.orchestration.narrator.job import NarratorDataConfig, NarratorJob
from mama_ray.orchestration.narrator.sources import refuse_unused, settings_at_hand
from mama_ray.storage.places import Place, storage_errors

_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "captions", "truth")
_NUM_SERVERS = 4  # of the rows of a large corpus
_NUM_TOKENIZER_CLIPS = 50_000  # enough to train a small vocabulary on; the rest adds nothing


@dataclass(frozen=True)
class NarratorData:
    """References to the splits' clips and the tokenizer's files, with what is known of the narrator.

    The clips are a table, or of train what takes rows as a table does.
    """

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
    loaded = _load.options(num_returns=5)
    *stored, known, found = loaded.remote(job, checkpoint, row_server.MAX_HELD_ROWS)
    facts, summary, is_served = result_of(found, *stored, known)
    if is_served:
        count = summary["num_clips"]["train"]
        stored[0] = row_server.served_rows(stored[0], count, _COLUMNS, num_servers=_NUM_SERVERS, facts=known)
    return NarratorData(*stored, facts, summary)


@ray.remote(num_cpus=0.5)
def _load(job: NarratorJob, checkpoint: str | None, max_held: int = row_server.MAX_HELD_ROWS) -> tuple:
    """Return the clips of train, as a table where they are at most `max_held`, of val, the tokenizer's files, what is
    known of rows that are no table, and of the narrator."""
    assert job.shards is not None  # the driver has put in where the embedded ones are
    chosen = job.data.captions
    with storage_errors(job.shards):
        index, splits = check_index(Place.of(job.shards))
        rows = {
            split: IndexRows(index, _COLUMNS, Chosen.of(splits == SPLITS.index(split))) for split in ("train", "val")
        }
        sha256 = hash_clips(rows)
        train = with_caption(rows["train"], chosen)
        tell_absent(train.tables(["captions"]), chosen if len(train) else None)
        known = facts_of(train) if len(train) > max_held else None
        tables = {"train": train if known else train.read(), "val": with_caption(rows["val"], chosen).read()}
    if not len(train):
        raise UserError(
            "no clips to learn from",
            got=f"{len(index)} clips in {job.shards}, {len(rows['train'])} of split train",
            wanted="clips of split train with a caption" + (f" of {sorted(chosen)}" if chosen is not None else ""),
        )
    files, facts = _describe(job, checkpoint, tables["train"])
    summary = {
        "num_clips": {split: len(table) for split, table in tables.items()},
        "num_uncaptioned": {split: len(rows[split]) - len(table) for split, table in tables.items()},
        "hash_of_ids": {split: hash_ids_of(table) for split, table in tables.items()},
        "contents": {"shards": sha256},
    }
    return tables["train"], tables["val"], files, known, (facts, summary, known is not None)


def _describe(job: NarratorJob, checkpoint: str | None, train: pa.Table | IndexRows) -> tuple[Files, NarratorFacts]:
    def texts() -> Iterable[str]:
        captions = train.select(["captions"]).slice(0, _NUM_TOKENIZER_CLIPS)["captions"].to_pylist()
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
    clips: pa.Table | ServedRows = ray.get(table)
    counts = clips_per_shard(clips) if isinstance(clips, pa.Table) else clips.known().clips_per_shard.tolist()
    return EpochPlan(counts, config)
