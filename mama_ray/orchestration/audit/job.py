"""What an audit is asked for."""

from typing import Literal

from pydantic import Field

from mama_ray.config import Config, with_overrides
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.storage.places import absolute_uri


class AuditJob(Config):
    """What a run has recorded of its samples, joined into one table per clip, with what should become of each."""

    run: str = "runs/train"
    """Folder or URI of a run that recorded its samples (record.every)."""

    shards: str | None = None
    """Folder or URI of the shards; null is where the run found them."""

    captions: tuple[str, ...] = ()
    """Caption tables beside those of the run: generated captions that may take the place of bad ones."""

    encoder: str | None = None
    """Run, checkpoint or model folder of the dual encoder that says how well captions fit, or hf:DIR_OR_ID; null is the
    run's own best checkpoint, which has learned from the very captions."""

    output: str | None = None
    """Folder or URI for the audit; null is `audit` in the run's folder."""

    by: Literal["weight", "loss", "cosine", "fit"] = "weight"
    """What makes a caption a suspect: low mean weight, high mean loss, low mean cosine while the run learned, or low
    cosine by the encoder."""

    share: float = Field(0.1, ge=0.0, le=1.0)
    """Share of the clips that are suspects: about what is thought to be wrong with the data."""

    num_compared: int = Field(20_000, ge=1)
    """Captions that each clip is compared with, drawn at random where there are more."""

    batch_size: int = Field(32, ge=1)
    """Clips decoded and embedded at a time."""

    num_actors: int = Field(1, ge=1)
    """Most actors that hold the encoder; each takes a GPU where use_gpu is set."""

    use_gpu: bool = False
    """Give every actor a GPU."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""


def with_absolute_paths(job: AuditJob) -> AuditJob:
    """Name every place so that tasks on other nodes, whose working directory is another, find it too."""
    changes: dict = {"run": absolute_uri(job.run), "captions": [absolute_uri(uri) for uri in job.captions]}
    for name in ("shards", "output"):
        if (uri := getattr(job, name)) is not None:
            changes[name] = absolute_uri(uri)
    return with_overrides(job, changes)
