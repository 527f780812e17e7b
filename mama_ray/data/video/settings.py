"""What a command line says of videos, without the libraries that decode and transform them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config

Resize = Literal["squash", "center_crop", "random_crop", "random_resized_crop"]
Interpolation = Literal["bicubic", "bilinear"]
Sampling = Literal["times", "numbers", "ends"]


class DecodeConfig(Config):
    """Limits that a video must keep; what exceeds one is refused before its pixels are touched."""

    max_bytes: int = Field(default=2 << 30, gt=0)
    """Largest file in bytes."""
    max_pixels: int = Field(default=8192 * 4320, gt=0)
    """Largest width x height of a frame, as it is coded and as it is shown, also where the size changes on the way; the
    default admits 8K."""
    max_duration_s: float = Field(default=4 * 3600.0, gt=0)
    """Longest video in seconds."""
    max_frames: AddedLater[int] = Field(default=2_000_000, gt=0)
    """Most frames of a video, hidden ones included, which bounds the memory of its index; the default is more than four
    hours at 120 frames/s."""
    timeout_s: float = Field(default=120.0, gt=0, le=1e6)
    """Longest CPU time in seconds for one reading of a video, looked at between frames; the process that decodes is
    ended where a single frame takes much longer. One that stands still for about as long tells of a disk, or of the
    machine, which ends the job and is no fault of the video."""
    max_frame_s: AddedLater[float] = Field(default=2.0, gt=0)
    """Longest CPU time in seconds per asked frame in prepare's trial of a clip, which opens it and seeks as every later
    reading does: what each epoch would pay again is refused once."""
    max_memory_gib: AddedLater[float] = Field(default=8.0, gt=0, le=1e6)
    """Most memory in GiB, counted as address space, of a process that decodes."""
    max_replaced: float = Field(default=0.5, ge=0, le=1)
    """Largest share of the asked frames that may be stood in for by the nearest one that decodes, in a damaged file."""
    reader: Literal["pyav", "decord"] = "pyav"
    """What decodes the pixels. pyav reads everything that can be read and survives damage; decord gives the same
    frames at the same speed on large sound videos, but crashes or hangs the process that decodes on some damaged ones,
    which are then refused, and where the size changes on the way only that process's memory limits it."""
    sampling: AddedLater[Sampling] = "times"
    """Which frames of a clip a model gets. times: of each equal part the one that is shown at a moment of it; numbers:
    the one whose number LaViLa's release computes, rounding half to even; ends: as CLIP-ViP's release from the first
    frame to the last in equal steps, in training between ends that are up to a step further inside."""


class WindowConfig(Config):
    """Which frames of its video a clip of so many seconds has."""

    fps: float | None = Field(default=None, gt=0, le=1000)
    """null: the frames that are shown in the clip's time, by the video's own times. A number: frames are counted at
    this rate, whatever the video's is, from the file or chunk in which the clip starts; 30 is what LaViLa's release
    does on Ego4D."""
    min_frames: int = Field(default=4, ge=1)
    """With fps: fewest frames of a clip, also where it is shorter; the release has the number that its model takes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fps is None and self.changed_beside("fps"):
            raise ValueError(f"min_frames {self.min_frames} has no meaning without fps: give both")
        return self


class SceneConfig(Config):
    """How a long video is cut into clips, one for each scene; nothing is cut unless a detector is named."""

    detector: Literal["none", "content", "adaptive"] = "none"
    """What finds the changes of scene: PySceneDetect's content detector, or its adaptive one, which takes the motion of
    the camera for none."""
    threshold: float | None = Field(default=None, gt=0)
    """How large a change is another scene, in the detector's own measure; null for its default."""
    min_s: float = Field(default=2.0, ge=0)
    """Shortest scene in seconds; shorter ones are left out."""
    max_s: float = Field(default=30.0, gt=0)
    """Longest clip in seconds; a longer scene is cut into equal parts. At least twice min_s."""
    timeout_s: float = Field(default=3600.0, gt=0, le=1e6)
    """Longest CPU time in seconds for one video: every frame of it is decoded."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_s < 2 * self.min_s:
            raise ValueError(f"max_s {self.max_s:g} is not at least twice min_s {self.min_s:g}")
        if self.detector == "none" and (told := self.changed_beside("detector")):
            raise ValueError(f"{', '.join(told)} have no meaning without detector: name content or adaptive, too")
        return self


class TranscodeConfig(Config):
    """How clips are made smaller when they are sharded; they are stored as they are unless short_side is given."""

    short_side: int | None = Field(default=None, ge=16, le=4320)
    """Most pixels of the shorter side, a little more than models take: 256 for 224. A smaller clip keeps its size. null
    stores clips as they are."""
    fps: float = Field(default=8.0, gt=0, le=1000)
    """Most frames per second. A clip of fewer keeps its own frames and times; of one of more, each 1/fps shows the
    frame that the clip shows in the middle of it."""
    key_every: int = Field(default=16, ge=1, le=1000)
    """Most frames from one key frame to the next: a reader decodes from the key frame before the one that it wants."""
    crf: int = Field(default=23, ge=0, le=51)
    """x264's constant rate factor: less is better and larger. Cuts that are stored as they are have 18."""
    timeout_s: float = Field(default=3600.0, gt=0, le=1e6)
    """Longest CPU time in seconds for one clip: every frame of it is decoded."""

    @property
    def is_on(self) -> bool:
        """Whether clips are made smaller."""
        return self.short_side is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.is_on and (told := self.changed_beside("short_side")):
            raise ValueError(f"{', '.join(told)} have no meaning without short_side: give it, too")
        return self
