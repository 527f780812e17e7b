"""What an evaluation is asked for."""

from typing import Literal

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config
from mama_ray.data.video.settings import DecodeConfig, Sampling
from mama_ray.storage.places import absolute_uri


class EvaluateJob(Config):
    """One evaluation of one checkpoint on one benchmark."""

    checkpoint: str = "runs/train"
    """Folder or URI of a run, of a checkpoint in a run, or of a saved model; hf:DIR_OR_ID is a dual encoder of Hugging
    Face, as transformers computes it; `embedded` is the small one that comes with the package."""

    shards: str | None = None
    """Folder or URI of the shards with their index; null is what the run was trained on."""

    benchmark: str = "own"
    """Name of a file in configs/benchmark, or the path of such a YAML file; own is the test split of any shards."""

    questions: str | None = None
    """Questions table of a benchmark of question answering; null is that of the run's training, or the questions that
    the shards themselves hold."""

    annotations: AddedLater[str | None] = None
    """Folder or URI of the official annotation files of a benchmark whose truth is not in the shards: EK-100,
    Charades-Ego, EGTEA, EgoMCQ."""

    features: str | None = None
    """Folder or URI of a table that jobs/features.py wrote of the shards, for a model that reads features (VGT); null
    is that of the run's training."""

    output: str | None = None
    """Folder or URI for the result; null is `evaluation` in the checkpoint's run, in the model's folder, of a hub id
    in runs/ID, and of `embedded` in runs/embedded-encoder."""

    resize: Literal["squash", "center_crop"] | None = None
    """How frames become squares; null is as in training, else as the model's folder says, else squash."""

    sampling: AddedLater[Sampling | None] = None
    """Which frames of a clip are seen, as decode.sampling says; null is as in training, else times."""

    batch_size: int = Field(32, ge=1)
    """Clips decoded and embedded at a time."""

    num_actors: int = Field(1, ge=1)
    """Most actors that hold the model; each takes a GPU where use_gpu is set."""

    use_gpu: bool = False
    """Give every actor a GPU."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder. Another sampling than times stands for `sampling`, which is null then."""

    num_examples: int = Field(6, ge=0)
    """Text queries whose first clips are written down for the report."""

    @property
    def asked_sampling(self) -> Sampling | None:
        """Which frames are asked for by either field; None where nothing is said."""
        return self.decode.sampling if self.decode.sampling != "times" else self.sampling

    @model_validator(mode="after")
    def _sampling_is_one(self) -> "EvaluateJob":
        if self.sampling not in (None, self.asked_sampling):
            raise ValueError(f"sampling {self.sampling} and decode.sampling {self.decode.sampling}: give one of them")
        return self


def with_absolute_paths(job: EvaluateJob) -> EvaluateJob:
    """Name what tasks read so that workers, whose working directory is another, find it too.

    Checkpoint and features are named so where they are looked at.
    """
    given = {name: getattr(job, name) for name in ("shards", "questions")}
    return job.model_copy(update={name: absolute_uri(uri) for name, uri in given.items() if uri is not None})
