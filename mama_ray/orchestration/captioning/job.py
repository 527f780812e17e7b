"""What a captioning job is asked for."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.settings import ClipShowConfig
from mama_ray.captioning.postprocess import PostprocessConfig
from mama_ray.captioning.quality import QualityConfig
from mama_ray.config import AddedLater, Config, MayChange
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.cluster.labels import NodeLabels
from mama_ray.storage.places import absolute_uri

EMBEDDED = "embedded"


class PoolConfig(Config):
    """The pool of engines. It grows while batches queue up and shrinks when they do not."""

    min_size: int = Field(1, ge=1)
    """Engines at least."""

    max_size: int = Field(1, ge=1)
    """Engines at most."""

    initial_size: int | None = Field(None, ge=1)
    """Engines at the start; null is min_size. The pool grows by a few at a time, each of which takes its time."""

    cpus_per_engine: float = Field(1.0, gt=0)
    """CPUs of an engine: its threads on a machine without a GPU."""

    gpus_per_engine: float = Field(0.0, ge=0)
    """GPUs of an engine; 1 for LLaVA 7B, a fraction lets several small models share one."""

    resources: dict[str, float] = {}
    """Custom resources of an engine, such as {caption_slot: 1}, which tie engines to a group of nodes."""

    engine_labels: NodeLabels = {}
    """Labels of nodes for engines, such as {ray.io/accelerator-type: H100}; empty is any node."""

    decode_labels: NodeLabels = {}
    """Labels of nodes for the tasks that read and decode clips; empty is any node."""

    concurrent_batches: int = Field(3, ge=1)
    """Chunks of 32 clips in one engine at a time; two keep it busy, one more keeps max_num_seqs of 64 filled. Of the
    larger chunks of a larger job as many as hold these clips, and two at least."""

    clips_per_commit: AddedLater[int] = Field(32, ge=1, le=32)
    """Clips of a chunk of 32 that are captioned and committed together. Fewer are seen sooner, and leave the engine
    fewer to work on at a time. Jobs of more than 1,048,576 clips have larger chunks and commit in proportion."""

    decode_cpus: float = Field(0.5, gt=0)
    """CPUs that a decode task reserves; its work is one thread's."""

    max_decode_tasks: int | None = Field(None, ge=1)
    """Decode tasks at a time; null is as many as fit, and on a machine without a cluster one for each core that the
    smallest pool leaves."""

    max_attempts: int = Field(3, ge=1)
    """Deaths of an engine with one clip alone in it after which that clip becomes an error row."""

    max_deaths: AddedLater[int | None] = Field(None, ge=3)
    """Deaths of an engine, with no caption by it in between, after which the job ends and says why; null is three times
    max_attempts and one, which so many clips in a row can bring about."""

    @model_validator(mode="after")
    def _sizes_are_in_order(self) -> "PoolConfig":
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        initial = self.initial_size or self.min_size
        if not self.min_size <= initial <= self.max_size:
            raise ValueError(f"initial_size {initial} is not from min_size {self.min_size} to max_size {self.max_size}")
        if self.cpus_per_engine == self.decode_cpus and not self.gpus_per_engine and not self.resources:
            raise ValueError(
                f"cpus_per_engine and decode_cpus are both {self.decode_cpus}: Ray Data would fuse the two"
            )
        require_deaths(self.max_attempts, self.max_deaths)
        return self


def require_deaths(max_attempts: int, max_deaths: int | None) -> None:
    """Raise ValueError where a job would end of a single clip that kills engines."""
    if max_deaths is not None and max_deaths < max_attempts + 2:
        raise ValueError(f"max_deaths {max_deaths} is below max_attempts {max_attempts} + 2: one bad clip would do")


def most_deaths(max_attempts: int, max_deaths: int | None) -> int:
    """Return the deaths of an engine after which a job ends."""
    return max_deaths or 3 * max_attempts + 1


class CaptionJob(Config):
    """One caption table."""

    shards: MayChange[str | None] = None
    """Folder or URI of shards with their index; null makes and uses the embedded corpus."""

    corpus: MayChange[CorpusConfig] = CorpusConfig()
    """The embedded corpus, where `shards` is null."""

    split: Literal["train", "meta", "val", "test"] | None = None
    """Caption the clips of one split; null captions all."""

    model: str | None = None
    """Folder, URI or hub id of a vision-language model in Hugging Face's layout, or of a gated narrator; null is the
    embedded narrator, which is refused on shards of other videos than the embedded corpus's; `embedded` is the same
    narrator, whatever the shards."""

    prompt: str | None = None
    """Name of a file in configs/prompt, or the path of such a YAML file; null is the prompt that a narrator was trained
    with, and `sentence` for other models."""

    output: MayChange[str] = "runs/captions"
    """Folder or URI of the caption table."""

    frames: ClipShowConfig = ClipShowConfig()
    """What of a clip the model is shown: key frames in a grid, or frames as they are."""

    side: int | None = Field(None, ge=16, le=4096)
    """Pixels of the square grid; null is what the model's processor makes of a picture."""

    sampling: SamplingConfig = SamplingConfig()
    """How captions are drawn from the model."""

    engine: MayChange[EngineConfig] = EngineConfig()
    """What runs the model, and how."""

    pool: MayChange[PoolConfig] = PoolConfig()
    """The pool of engines and what each reserves."""

    postprocess: PostprocessConfig = PostprocessConfig()
    """How a model's words become a caption."""

    quality: QualityConfig = QualityConfig()
    """Where the quality gate draws its lines."""

    similarity: str | None = None
    """Run, checkpoint or model folder of a dual encoder: its cosine of clip and caption becomes a column, and one below
    quality.min_similarity a flag."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""

    dry_run: MayChange[bool] = False
    """Print the plan, with time and tokens as measured on a few clips, and write nothing."""

    @model_validator(mode="after")
    def _similarity_is_measured(self) -> "CaptionJob":
        if self.quality.asks_for_similarity and self.similarity is None:
            raise ValueError("quality.min_similarity needs similarity, the dual encoder that tells it")
        return self


def with_absolute_paths(job: CaptionJob) -> CaptionJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"output": absolute_uri(job.output)}
    if job.shards is not None:
        changes["shards"] = absolute_uri(job.shards)
    if job.similarity is not None:
        changes["similarity"] = absolute_uri(job.similarity)
    if job.model not in (None, EMBEDDED) and (
        Path(job.model).exists() or job.model.startswith((".", "~"))
    ):  # else URI or hub id
        changes["model"] = absolute_uri(job.model)
    return job.model_copy(update=changes)


def corpus_home(output: str) -> str:
    """The embedded corpus is kept beside the table, where other jobs look for it, too."""
    return output.rstrip("/").rpartition("/")[0] or "runs"
