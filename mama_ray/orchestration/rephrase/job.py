"""What a rephrasing job is asked for."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.quality import QualityConfig
from mama_ray.captioning.rephrasing.settings import DecodingConfig, WordingConfig
from mama_ray.config import AddedLater, Config, MayChange
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.orchestration.captioning.job import require_deaths
from mama_ray.orchestration.cluster.labels import NodeLabels
from mama_ray.storage.places import absolute_uri


class RephrasePoolConfig(Config):
    """The pool of engines. It grows while captions queue up and shrinks when they do not."""

    min_size: int = Field(1, ge=1)
    """Engines at least."""

    max_size: int = Field(1, ge=1)
    """Engines at most."""

    initial_size: int | None = Field(None, ge=1)
    """Engines at the start; null is min_size."""

    cpus_per_engine: float = Field(1.0, gt=0)
    """CPUs of an engine: its threads on a machine without a GPU."""

    gpus_per_engine: float = Field(0.0, ge=0)
    """GPUs of an engine; a fraction lets several share one, 0 runs a T5 on CPUs."""

    resources: dict[str, float] = {}
    """Custom resources of an engine, which tie engines to a group of nodes."""

    engine_labels: NodeLabels = {}
    """Labels of nodes for engines, such as {ray.io/accelerator-type: H100}; empty is any node."""

    max_attempts: int = Field(3, ge=1)
    """Deaths of an engine with one clip alone in it after which that clip becomes error rows."""

    max_deaths: AddedLater[int | None] = Field(None, ge=3)
    """Deaths of an engine, with no caption by it in between, after which the job ends and says why; null is three times
    max_attempts and one, which so many clips in a row can bring about."""

    @model_validator(mode="after")
    def _sizes_are_in_order(self) -> "RephrasePoolConfig":
        initial = self.initial_size or self.min_size
        if not self.min_size <= initial <= self.max_size:
            raise ValueError(f"wanted min_size {self.min_size} <= initial_size {initial} <= max_size {self.max_size}")
        require_deaths(self.max_attempts, self.max_deaths)
        return self


class RephraseJob(Config):
    """One caption table of paraphrases."""

    shards: MayChange[str | None] = None
    """Folder or URI of shards with their index, whose human captions are rephrased; no video is read. Null makes and
    uses the embedded corpus."""

    corpus: MayChange[CorpusConfig] = CorpusConfig()
    """The embedded corpus, where `shards` is null."""

    model: str
    """Folder, URI or hub id of a T5, such as ramsrigouthamg/t5-large-paraphraser-diverse-high-quality, or of an
    instruct model with a chat template, which vLLM runs."""

    output: MayChange[str] = "runs/rephrased"
    """Folder or URI of the caption table."""

    split: Literal["train", "meta", "val", "test"] | None = "train"
    """Rephrase the captions of one split; null rephrases all. Training reads those of train."""

    prompt: str | None = None
    """What the model is given, with {text} where the caption goes: a T5 the whole prompt, an instruct model what its
    chat template is filled with. Null is `paraphrase: {text} </s>` for a T5 and an instruction for others."""

    decoding: DecodingConfig = DecodingConfig()
    """How candidates are found and how many are kept."""

    wording: WordingConfig = WordingConfig()
    """How a model's words become a paraphrase."""

    engine: MayChange[EngineConfig] = EngineConfig()
    """How vLLM runs an instruct model. Of a T5 dtype and max_num_seqs count, candidates that are decoded at a time;
    others are refused."""

    pool: MayChange[RephrasePoolConfig] = RephrasePoolConfig()
    """The pool of engines and what each reserves."""

    quality: QualityConfig = QualityConfig()
    """Where the quality gate draws its lines. Texts that many clips share are no duplicates here: people say the same
    of many clips."""

    @model_validator(mode="after")
    def _no_similarity_is_asked_for(self) -> "RephraseJob":
        if self.quality.asks_for_similarity:
            raise ValueError("quality.min_similarity has no use here: no video is read")
        return self


def with_absolute_paths(job: RephraseJob) -> RephraseJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"output": absolute_uri(job.output)}
    if job.shards is not None:
        changes["shards"] = absolute_uri(job.shards)
    if Path(job.model).exists() or job.model.startswith((".", "~")):  # else URI or hub id
        changes["model"] = absolute_uri(job.model)
    return job.model_copy(update=changes)
