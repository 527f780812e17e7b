"""What an extraction of features is asked for."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mama_ray.config import Config, MayChange
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.storage.places import absolute_uri


class ActorConfig(Config):
    """The actors that decode clips and run both models on them."""

    number: int = Field(default=1, ge=1, le=1 << 16)
    """Actors at a time."""
    cpus: float = Field(default=1.0, gt=0)
    """CPUs of an actor: its threads on a machine without a GPU."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of an actor; 0 runs the models on its CPUs."""
    resources: dict[str, float] = {}
    """Custom resources of an actor, which tie actors to a group of nodes."""
    max_attempts: int = Field(default=3, ge=1)
    """Deaths of an actor with the same 16 clips in it after which the job ends."""


class FeaturesJob(Config):
    """One table of features."""

    shards: MayChange[str]
    """Folder or URI of prepared shards with their index."""

    split: Literal["train", "meta", "val", "test"] | None = None
    """Extract the clips of one split; null extracts all."""

    frame_model: MayChange[str]
    """ResNet for the feature of a frame: folder, URI or hub id of a transformers ResNet, such as microsoft/resnet-101,
    or a file with torchvision's key names."""

    detector: MayChange[str]
    """Detector for regions and their features: folder, URI or hub id of a transformers DETR or RT-DETR."""

    output: MayChange[str] = "runs/features"
    """Folder or URI of the table."""

    num_clips: int = Field(default=8, ge=1, le=1 << 10)
    """Clips of a video, VGT's 8; a video with fewer frames has no features."""

    frames_per_clip: int = Field(default=4, ge=1, le=1 << 10)
    """Frames of a clip."""

    num_regions: int = Field(default=10, ge=1, le=1 << 10)
    """Regions of a frame, the surest ones; VGT takes 5 of them for NExT-QA."""

    actors: MayChange[ActorConfig] = ActorConfig()
    """The actors and what each reserves."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""


def with_absolute_paths(job: FeaturesJob) -> FeaturesJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"output": absolute_uri(job.output), "shards": absolute_uri(job.shards)}
    for name in ("frame_model", "detector"):
        source = getattr(job, name)
        if Path(source).exists() or source.startswith((".", "~")):  # else URI or hub id
            changes[name] = absolute_uri(source)
    return job.model_copy(update=changes)
