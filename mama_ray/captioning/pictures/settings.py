"""The picture of a clip; without the libraries that decode one, as a command line names it."""

from pydantic import Field, model_validator

from mama_ray.captioning.pictures.grid import GridConfig
from mama_ray.captioning.pictures.keyframes import KeyFrameConfig
from mama_ray.config import Config


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
