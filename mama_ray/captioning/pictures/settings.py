"""The picture of a clip; without the libraries that decode one, as a command line names it."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from mama_ray.captioning.pictures.grid import GridConfig
from mama_ray.captioning.pictures.keyframes import KeyFrameConfig
from mama_ray.config import AddedLater, Config

# The ways to show a clip. The content of a grid is (side, side, 3): key frames as one square picture; of frames
# (frames, side, side, 3): one per equal part, the short side resized, cropped in the middle; of a video (frames,
# height, width, 3): one per equal part, in the clip's own aspect.
ShownAs = Literal["grid", "frames", "video"]
GRID, FRAMES, VIDEO = KINDS = get_args(ShownAs)
VIDEO_FRAMES = 8  # of a video where nothing is said; the models that take one take any number
# Of one clip; a batch has 32 of them, and pyarrow's columns end at 2 GiB.
_MAX_SHOWN_BYTES = 48 << 20


def require_frames_fit(num_frames: int, side: int) -> None:
    """Raise ValueError where so many frames of `side` pixels are more than a batch of clips can hold."""
    limit = _MAX_SHOWN_BYTES // (3 * side**2)
    if num_frames > limit:
        raise ValueError(f"num_frames {num_frames} of {side} pixels are too many: at most {limit}")


class ClipGridConfig(Config):
    """What of a clip a captioner sees: key frames, one per cell of a grid."""

    key_frames: KeyFrameConfig = KeyFrameConfig()
    """Which frames, and how many."""

    layout: GridConfig = GridConfig()
    """Rows and columns."""

    num_candidates: int = Field(96, ge=1)
    """Frames that key frames are chosen from, evenly spread over a clip that has more."""

    @model_validator(mode="after")
    def _frames_fill_the_grid(self) -> "ClipGridConfig":
        if self.key_frames.num_frames != self.layout.num_cells:
            raise ValueError(
                f"key_frames.num_frames {self.key_frames.num_frames} is not layout.rows x layout.columns = "
                f"{self.layout.rows} x {self.layout.columns} = {self.layout.num_cells}"
            )
        return self


class ClipShowConfig(ClipGridConfig):
    """What of a clip a captioner sees: a grid of key frames, or frames as they are."""

    show: AddedLater[ShownAs | None] = None
    """grid: key frames as one picture; frames: one frame per equal part of the clip, square, which the gated narrator
    takes; video: likewise, in the clip's own aspect, for a model that vLLM shows videos. null is what the model was
    made for: frames for a gated narrator, a grid for any other."""

    num_frames: AddedLater[int | None] = Field(None, ge=1, le=256)
    """Frames of frames and video; null is as many as a gated narrator was trained with, or 8 of a video."""

    long_side: AddedLater[int] = Field(448, ge=28, le=2048)
    """Longest side of a video's frames in pixels; smaller clips keep their size."""

    @model_validator(mode="after")
    def _frames_have_a_use_and_a_bound(self) -> "ClipShowConfig":
        if self.num_frames is not None and self.show == GRID:
            raise ValueError("num_frames is of frames and video; a grid has key_frames.num_frames")
        if self.show == VIDEO:
            require_frames_fit(self.num_frames or VIDEO_FRAMES, self.long_side)
        return self

    def names_without_use(self, kind: ShownAs) -> list[str]:
        """Return the settings that were changed and mean nothing to this way of showing a clip."""
        of_others = ("key_frames", "layout", "num_candidates") if kind != GRID else ("num_frames",)
        of_others += ("long_side",) if kind != VIDEO else ()
        return [name for name in of_others if getattr(self, name) != getattr(type(self)(), name)]

    def grid_config(self) -> ClipGridConfig:
        """Return what of this decides on a grid."""
        return ClipGridConfig(key_frames=self.key_frames, layout=self.layout, num_candidates=self.num_candidates)
