"""How a stored picture is shown: the display matrix that turns and mirrors it, and the shape of its pixels."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture down: rows and columns change places first, then it is mirrored."""

    transposes: bool = False
    flips_x: bool = False
    """Left and right change places."""
    flips_y: bool = False
    """Top and bottom change places."""

    @property
    def is_mirrored(self) -> bool:
        """Whether writing in the picture reads backwards unless it is mirrored: no rotation gives this one."""
        return self.transposes ^ self.flips_x ^ self.flips_y

    @property
    def rotation(self) -> int:
        """The angle of the display matrix in degrees, counter-clockwise, of -90, 0, 90, 180, as ffprobe prints it."""
        # The direction in which the stored picture's rows run once it is shown.
        if self.transposes:
            return 90 if self.flips_y else -90
        return 180 if self.flips_x else 0

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return stored pixels (height, width, 3) as they are shown."""
        shown = pixels.transpose(1, 0, 2) if self.transposes else pixels
        return np.ascontiguousarray(shown[:: -1 if self.flips_y else 1, :: -1 if self.flips_x else 1])


UPRIGHT = Orientation()


def orientation_of(frame: VideoFrame) -> Orientation:
    """Read a frame's display matrix, to the nearest quarter turn."""
    by_type: Any = frame.side_data  # typed as a mapping of nothing
    data = by_type.get(Type.DISPLAYMATRIX)
    return UPRIGHT if data is None else orientation_of_matrix(np.frombuffer(data, np.int32))


def orientation_of_matrix(matrix: np.ndarray) -> Orientation:
    """Read (a, b, u, c, d, v, x, y, w): the stored place (p, q) is shown at (a p + c q + x, b p + d q + y), y
    downwards."""
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposes=True, flips_x=c < 0, flips_y=b < 0)
    return Orientation(flips_x=a < 0, flips_y=d < 0)


def shown_size(width: int, height: int, pixel_aspect: Fraction, orientation: Orientation | None) -> tuple[int, int]:
    """Return (width, height) in square pixels: the side whose pixels are longer grows, so that no detail is lost."""
    if pixel_aspect > 1:
        width = round(width * pixel_aspect)
    elif pixel_aspect < 1:
        height = round(height / pixel_aspect)
    return (height, width) if orientation is not None and orientation.transposes else (width, height)
