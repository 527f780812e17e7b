"""What an index of embeddings is asked for."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mama_ray.captioning.quality import Flag
from mama_ray.config import Config, MayChange
from mama_ray.models.hub import absolute_source
from mama_ray.storage.places import absolute_uri


class IndexActorConfig(Config):
    """The actors that decode clips and run the model on them; their number follows the work."""

    min_number: int = Field(default=1, ge=1, le=1 << 16)
    """Actors that are kept."""
    max_number: int = Field(default=4, ge=1, le=1 << 16)
    """Actors at a time, as far as the cluster has room for them."""
    cpus: float = Field(default=1.0, gt=0)
    """CPUs of an actor: its decoding processes, and without a GPU the threads of the model."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of an actor; 0 runs the model on its CPUs."""
    resources: dict[str, float] = {}
    """Custom resources of an actor, which tie actors to a group of nodes."""

    @model_validator(mode="after")
    def _are_in_order(self) -> Self:
        if self.min_number > self.max_number:
            raise ValueError(f"min_number {self.min_number} is above max_number {self.max_number}")
        return self


class IndexJob(Config):
    """One table of embeddings."""

    shards: MayChange[str]
    """Folder or URI of prepared shards with their index."""

    model: MayChange[str]
    """Run (its best checkpoint by validation), checkpoint, model folder, URI of these, or with hf: before it a folder
    or hub id of a dual encoder of Hugging Face. `embedded` is the small one that comes with the package."""

    captions: MayChange[list[str]] = []
    """Folders or URIs of caption tables, whose captions are searched beside those in the shards."""

    exclude_flags: MayChange[list[Flag]] = []
    """Captions of the tables with one of these flags of the quality gate are left out."""

    output: MayChange[str] = "runs/index"
    """Folder or URI of the table."""

    split: Literal["train", "meta", "val", "test"] | None = None
    """Index the clips of one split; null indexes all."""

    part_clips: int = Field(default=256, ge=1, le=1 << 16)
    """Clips of a file, all of one shard; at most this many in each actor are encoded again after a stop."""

    batch_size: int = Field(default=32, ge=1, le=1 << 12)
    """Clips, or captions, that the model encodes at a time."""

    actors: MayChange[IndexActorConfig] = IndexActorConfig()
    """The actors and what each reserves."""

    @model_validator(mode="after")
    def _flags_have_captions(self) -> Self:
        if self.exclude_flags and not self.captions:
            raise ValueError("exclude_flags needs captions: those in the shards have no flags")
        return self


def with_absolute_paths(job: IndexJob) -> IndexJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes: dict = {name: absolute_uri(getattr(job, name)) for name in ("output", "shards")}
    changes["captions"] = [absolute_uri(table) for table in job.captions]
    changes["model"] = absolute_source(job.model)
    return job.model_copy(update=changes)
