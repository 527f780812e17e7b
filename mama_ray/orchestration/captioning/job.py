"""What a captioning job is asked for."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.clip_grid import ClipGridConfig
from mama_ray.captioning.postprocess import PostprocessConfig
from mama_ray.captioning.quality import QualityConfig
from mama_ray.config import Config, MayChange
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.decode import DecodeConfig
from mama_ray.orchestration.captioning.pool import PoolConfig
from mama_ray.storage.places import absolute_uri


class CaptionJob(Config):
    """One caption table."""

    shards: MayChange[str | None] = None
    """Folder or URI of shards with their index; null makes and uses the embedded corpus."""

    corpus: MayChange[CorpusConfig] = CorpusConfig()
    """The embedded corpus, where `shards` is null."""

    split: Literal["train", "meta", "val", "test"] | None = None
    """Caption the clips of one split; null captions all."""

    model: str | None = None
    """Folder, URI or hub id of a LLaVA in Hugging Face's layout; null is the embedded narrator."""

    prompt: str | None = None
    """Name of a file in configs/prompt, or the path of such a YAML file; null is the prompt that a narrator was trained
    with, and `sentence` for other models."""

    output: MayChange[str] = "runs/captions"
    """Folder or URI of the caption table."""

    frames: ClipGridConfig = ClipGridConfig()
    """Key frames and their grid."""

    side: int | None = Field(None, ge=16, le=4096)
    """Pixels of the square grid; null is what the model's processor makes of a picture."""

    sampling: SamplingConfig = SamplingConfig()
    """How captions are drawn from the model."""

    engine: MayChange[EngineConfig] = EngineConfig()
    """How vLLM runs the model."""

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


def with_absolute_paths(job: CaptionJob) -> CaptionJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"output": absolute_uri(job.output)}
    if job.shards is not None:
        changes["shards"] = absolute_uri(job.shards)
    if job.similarity is not None:
        changes["similarity"] = absolute_uri(job.similarity)
    if job.model is not None and (Path(job.model).exists() or job.model.startswith((".", "~"))):  # else URI or hub id
        changes["model"] = absolute_uri(job.model)
    return job.model_copy(update=changes)


def corpus_home(output: str) -> str:
    """The embedded corpus is kept beside the table, where other jobs look for it, too."""
    return output.rstrip("/").rpartition("/")[0] or "runs"
