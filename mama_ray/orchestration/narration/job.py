"""What a narrate job is asked for."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.settings import ClipShowConfig
from mama_ray.captioning.postprocess import PostprocessConfig
from mama_ray.captioning.quality import QualityConfig
from mama_ray.captioning.timeline import TimelineConfig
from mama_ray.config import Config, MayChange
from mama_ray.data.narrations.human_clips import HumanTimes
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.data.video.windows import WindowPlanConfig
from mama_ray.orchestration.captioning.job import EMBEDDED, PoolConfig
from mama_ray.storage.places import absolute_uri

# A long video is larger and takes longer than a clip; its frames are read one after the other all the same.
_LONG_VIDEOS = DecodeConfig(
    max_bytes=64 << 30, max_duration_s=24 * 3600.0, max_frames=12_000_000, timeout_s=600.0, max_memory_gib=16.0
)


class NarrateJob(Config):
    """The narration of one or several videos."""

    videos: MayChange[list[str]] = []
    """Videos, folders of them, and .txt files with a path or URI a line. Without any a film of the embedded corpus is
    made and narrated."""

    corpus: MayChange[CorpusConfig] = CorpusConfig()
    """The embedded corpus, whose val split is the film; where there are no `videos`."""

    model: str | None = None
    """Folder, URI or hub id of a captioner, as of jobs/caption.py. null is the embedded narrator, which knows the
    embedded film alone and is refused for videos of your own; `embedded` is the same narrator, whatever the videos."""

    prompt: str | None = None
    """Name of a file in configs/prompt, or the path of such a YAML file; null is the prompt that a narrator was trained
    with, and `sentence` for other models."""

    output: MayChange[str] = "runs/narration"
    """Folder or URI of the caption table and of the time lines."""

    windows: WindowPlanConfig = WindowPlanConfig()
    """Which seconds are narrated together."""

    scenes: SceneConfig = SceneConfig()
    """Changes of scene that no window crosses; each frame is decoded once more to find them."""

    human: MayChange[str | None] = None
    """Table of annotations with the human clips of the videos; for windows.cover uncovered and human."""

    human_times: HumanTimes = "clips"
    """clips: they have start_s and end_s; moments: start_s is when something was said, of which EgoVLP's rule makes a
    clip."""

    frames: ClipShowConfig = ClipShowConfig()
    """What of a window the model is shown: key frames in a grid, or frames as they are."""

    side: int | None = Field(None, ge=16, le=4096)
    """Pixels of the square grid; null is what the model's processor makes of a picture."""

    sampling: SamplingConfig = SamplingConfig()
    """How captions are drawn from the model."""

    engine: MayChange[EngineConfig] = EngineConfig()
    """How the engine runs the model."""

    pool: MayChange[PoolConfig] = PoolConfig()
    """The pool of engines and what each reserves."""

    postprocess: PostprocessConfig = PostprocessConfig()
    """How a model's words become a caption."""

    quality: QualityConfig = QualityConfig()
    """Where the quality gate draws its lines."""

    timeline: MayChange[TimelineConfig] = TimelineConfig()
    """How captions of windows become a time line; a job that is done writes it anew, without captioning again."""

    decode: DecodeConfig = _LONG_VIDEOS
    """Limits of the video decoder."""

    refresh_s: MayChange[float] = Field(15.0, gt=0)
    """Seconds after which time lines are written again while the job runs."""

    dry_run: MayChange[bool] = False
    """Print the plan, with time and tokens as measured on a few windows, and write nothing."""

    @field_validator("videos")
    @classmethod
    def _videos_have_names(cls, videos: list[str]) -> list[str]:
        if not all(video.strip() for video in videos):
            raise ValueError("an empty name would stand for the working directory: name the video, or . for that")
        return videos

    @model_validator(mode="after")
    def _human_clips_have_a_use(self) -> Self:
        if self.windows.cover == "human" and not self.human:
            raise ValueError("windows.cover human needs human, the table of the human clips")
        if self.windows.cover == "uncovered" and not self.human:
            raise ValueError("windows.cover uncovered needs human, the table of what is covered; all needs none")
        if self.windows.cover == "all" and self.human:
            raise ValueError("human has no use with windows.cover all: say uncovered, or human")
        return self

    @model_validator(mode="after")
    def _settings_have_a_use(self) -> Self:
        if self.quality.asks_for_similarity:
            raise ValueError("quality.min_similarity has no use here: windows are compared with no dual encoder")
        if self.windows.cover == "human":  # whose clips stay as they are
            changed = self.windows.changed_beside("cover")
            told = [f"windows.{name}" for name in ("window_s", "stride_s") if name in changed]
            told += ["scenes.detector"] if self.scenes.detector != "none" else []
            if told:
                names = " and ".join(told)
                raise ValueError(f"{names} without a use with windows.cover human, whose clips stay as they are")
        return self


def with_absolute_paths(job: NarrateJob) -> NarrateJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes: dict = {"output": absolute_uri(job.output), "videos": [absolute_uri(video) for video in job.videos]}
    if job.human is not None:
        changes["human"] = absolute_uri(job.human)
    if job.model not in (None, EMBEDDED) and (
        Path(job.model).exists() or job.model.startswith((".", "~"))
    ):  # else URI or hub id
        changes["model"] = absolute_uri(job.model)
    return job.model_copy(update=changes)
