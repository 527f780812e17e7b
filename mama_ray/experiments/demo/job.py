"""What the demo is asked for."""

from pydantic import Field

from mama_ray.config import Config
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.settings import RecordConfig


class DemoJob(Config):
    """Four training runs: three differ in their objective alone, the fourth reads generated captions as well."""

    storage: str = "runs"
    """Folder or URI under which corpus, runs and report are kept."""

    name: str = Field("demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """First part of the runs' names and name of the report's folder."""

    train: TrainJob = TrainJob(
        num_epochs=8.0,
        checkpoint_every=64,
        objective=ContrastiveConfig(margin=0.1),
        record=RecordConfig(every=1),  # which pairs the weights distrust is a page of the app
    )
    """What the runs share; its storage and run are not used, its margin is that of the runs with one."""

    caption: CaptionJob = CaptionJob(split="train")
    """How the training clips are captioned; its shards and output are not used."""
