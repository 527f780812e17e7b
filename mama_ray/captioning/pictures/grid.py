"""Key frames as one picture: rows of cells in time order, left to right, then down, padded to a square.

The square is made here because the image processors of LLaVA's conversions cut a wide picture's sides off.
"""

import hashlib

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from mama_ray.config import Config

# The mean colour of CLIP's training images: what the vision tower sees there is next to nothing after normalisation.
_PADDING_COLOUR = (122, 116, 104)


class GridConfig(Config):
    """The layout of the grid."""

    rows: int = Field(3, ge=1)
    """Rows of cells."""

    columns: int = Field(4, ge=1)
    """Cells in a row."""

    @property
    def num_cells(self) -> int:
        """Frames that the grid holds."""
        return self.rows * self.columns


def make_grid(
    frames: UInt8[np.ndarray, "frames height width 3"], config: GridConfig, side: int | None = None
) -> UInt8[np.ndarray, "side side 3"]:
    """Return the square picture of the frames, padded to `side`; ValueError unless there is one frame per cell."""
    num_frames, height, width, _ = frames.shape
    if num_frames != config.num_cells:
        raise ValueError(
            f"frames of a grid: got {num_frames}, wanted rows x columns = {config.rows} x {config.columns}"
            f" = {config.num_cells}; set the number of key frames to that"
        )
    cells = frames.reshape(config.rows, config.columns, height, width, 3)
    return pad_to_square(cells.transpose(0, 2, 1, 3, 4).reshape(config.rows * height, config.columns * width, 3), side)


def pad_to_square(
    picture: UInt8[np.ndarray, "height width 3"], side: int | None = None
) -> UInt8[np.ndarray, "side side 3"]:
    """Return the picture in the middle of a square, of its longer side or of a given larger one."""
    height, width, _ = picture.shape
    side = side or max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.empty((side, side, 3), np.uint8)
    square[:] = _PADDING_COLOUR
    square[top : top + height, left : left + width] = picture
    return square


def hash_pixels(shown: UInt8[np.ndarray, "*sizes 3"]) -> str:
    """Return the sha256 of the size and the pixels of a picture or of frames: what a caption was written from."""
    digest = hashlib.sha256(np.asarray(shown.shape, "<i8").tobytes())
    digest.update(np.ascontiguousarray(shown).tobytes())
    return digest.hexdigest()
