"""What a narrator's run reads: clips with a caption, split into train and val, and the files of its processor.

Everything here runs in one remote task, so the driver holds references and a few counts, whatever the size of the
corpus.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import ray
from tokenizers import Tokenizer

from mama_ray.captioning.engines.captioner import picture_side
from mama_ray.captioning.narrator.folder import load_processor
from mama_ray.captioning.narrator.loss import CaptionLabels
from mama_ray.captioning.narrator.preset import build_tiny_processor
from mama_ray.captioning.narrator.samples import PictureAssembler
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.captioning.prompts import PromptConfig, render_prompt
from mama_ray.data.contents import hash_clips
from mama_ray.data.index import check_shards, clips_per_shard, hash_ids, read_index, select_captioned, select_split
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.narrator.job import NarratorDataConfig
from mama_ray.storage.places import Place, storage_errors

_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256", "captions", "truth")
_NUM_TOKENIZER_CLIPS = 50_000  # enough to train a small vocabulary on; the rest adds nothing


@dataclass(frozen=True)
class NarratorData:
    """References to the splits' tables and the processor's files, with what a config needs to know of them."""

    train: ray.ObjectRef
    val: ray.ObjectRef
    processor_files: ray.ObjectRef
    prompt: str
    side: int
    end_id: int
    summary: dict


@dataclass(frozen=True)
class PictureReader:
    """What a decode task needs to make any batch of the run; picklable and small."""

    data: NarratorData
    shards: str
    grid: ClipGridConfig
    config: NarratorDataConfig
    seed: int

    def assembler(self, table: ray.ObjectRef | None = None) -> PictureAssembler:
        """Build the assembler of `table` (default: training's); it is mapped from shared memory, not copied."""
        folder = Place.of(self.shards)
        to_labels = CaptionLabels(
            _tokenizer_of(self.data.processor_files),
            self.data.prompt,
            end_id=self.data.end_id,
            max_tokens=self.config.max_caption_tokens,
        )
        return PictureAssembler(
            folder,
            ray.get(table or self.data.train),
            to_labels,
            self.grid,
            self.data.side,
            decode=self.config.decode,
            caption_probabilities=self.config.captions,
            seed=self.seed,
        )

    def epoch_plan(self) -> EpochPlan:
        """Return the plan of the table's rows, built once per process."""
        return _plan_of(self.data.train, self.config.plan.model_copy(update={"seed": self.seed}))


def load_narrator_data(
    shards: str, config: NarratorDataConfig, prompt: PromptConfig, *, processor: str | None, vocab_size: int
) -> NarratorData:
    """Check the shards, load the splits and make the processor; raises UserError for anything a user can put right.

    processor: where that of a pretrained or resumed model is; None trains a small tokenizer on the captions.
    """
    *stored, facts = _load.options(num_returns=4).remote(shards, config, prompt, processor, vocab_size)
    return NarratorData(*stored, **result_of(facts, *stored))


@contextmanager
def unpacked(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Give a folder that holds these files."""
    with tempfile.TemporaryDirectory(prefix="mama_ray-processor-") as directory:
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)
        yield Path(directory)


@ray.remote(num_cpus=0.5)
def _load(
    shards: str, config: NarratorDataConfig, prompt: PromptConfig, source: str | None, vocab_size: int
) -> tuple[pa.Table, pa.Table, dict[str, bytes], dict]:
    folder = Place.of(shards)
    with storage_errors(shards):
        index = read_index(folder)
        check_shards(folder, index)
    splits = {split: select_split(index, split).select(_COLUMNS) for split in ("train", "val")}
    tables = {split: select_captioned(table, config.captions) for split, table in splits.items()}
    if not len(tables["train"]):
        raise UserError(
            "no clips to learn from",
            got=f"{len(index)} clips in {shards}, {len(splits['train'])} of split train",
            wanted="clips of split train with a caption"
            + (f" of {sorted(config.captions)}" if config.captions is not None else ""),
        )
    if source is None:
        captions = tables["train"]["captions"].slice(0, _NUM_TOKENIZER_CLIPS).to_pylist()
        texts = (caption["text"] for clip in captions for caption in clip)
        processor = build_tiny_processor(texts, prompt.text, vocab_size=vocab_size)
    else:
        with model_folder(source) as directory:
            processor = load_processor(directory)
    with tempfile.TemporaryDirectory(prefix="mama_ray-processor-") as scratch:
        processor.save_pretrained(scratch)
        files = {file.name: file.read_bytes() for file in Path(scratch).iterdir()}
    facts = {
        "prompt": render_prompt(prompt, processor),
        "side": picture_side(processor),
        "end_id": processor.tokenizer.eos_token_id,
        "summary": {
            "num_clips": {split: len(table) for split, table in tables.items()},
            "num_uncaptioned": {split: len(splits[split]) - len(table) for split, table in tables.items()},
            "hash_of_ids": {split: hash_ids(table["clip_id"].to_pylist()) for split, table in tables.items()},
            "contents": {"shards": hash_clips(splits)},
        },
    }
    return tables["train"], tables["val"], files, facts


@lru_cache(maxsize=2)
def _tokenizer_of(files: ray.ObjectRef) -> Tokenizer:
    # Without transformers, which a decode task would spend seconds on.
    return Tokenizer.from_buffer(ray.get(files)["tokenizer.json"])


@lru_cache(maxsize=2)
def _plan_of(table: ray.ObjectRef, config: PlanConfig) -> EpochPlan:
    return EpochPlan(clips_per_shard(ray.get(table)), config)
