"""Where an object is at each moment of its event: offset, scale and visibility."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

# Distances as shares of the picture's side.
TRAVEL = {"simple": 0.8, "full": 0.3}
ORBIT_RADIUS = {"simple": 0.27, "full": 0.13}
_SMALLEST, _LARGEST = 0.4, 1.6
_SLANT = 0.75  # a slanting path is longer than a straight one of equal extent, so it reaches less far each way
_DIRECTIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up left": (-_SLANT, -_SLANT),
    "up right": (_SLANT, -_SLANT),
    "down left": (-_SLANT, _SLANT),
    "down right": (_SLANT, _SLANT),
}


@dataclass(frozen=True)
class Path:
    """Offsets from the object's middle place in shares of the side, scale of its radius, and whether it is shown."""

    offset: Float64[np.ndarray, "frames 2"]
    scale: Float64[np.ndarray, " frames"]
    is_shown: Bool[np.ndarray, " frames"]


def trace(motion: str, progress: Float64[np.ndarray, " frames"], level: str) -> Path:
    """Return the path of a motion at each `progress` of its event, 0 its start and 1 its end; outside of the event the
    object stays as it was or became.
    """
    offset = np.zeros((len(progress), 2))
    scale = np.ones(len(progress))
    is_shown = np.ones(len(progress), dtype=bool)
    if motion in _DIRECTIONS:
        offset = (progress[:, None] - 0.5) * np.array(_DIRECTIONS[motion]) * TRAVEL[level]
    elif motion in ("orbits", "circles back"):
        angle = 2 * np.pi * progress * (1 if motion == "orbits" else -1)
        offset = np.stack([np.sin(angle), -np.cos(angle)], axis=1) * ORBIT_RADIUS[level]
    elif motion == "swings":
        offset = np.sin(2 * np.pi * progress)[:, None] * np.array([0.5, 0]) * TRAVEL[level]
    elif motion == "bounces":
        offset = np.sin(np.pi * progress)[:, None] * np.array([0, -1]) * TRAVEL[level]
    elif motion == "pulses":
        scale = 1 + (_LARGEST - 1) * np.sin(2 * np.pi * progress)
    elif motion == "grows":
        scale = _SMALLEST + (_LARGEST - _SMALLEST) * progress
    elif motion == "shrinks":
        scale = _LARGEST - (_LARGEST - _SMALLEST) * progress
    elif motion == "blinks":
        # Two flashes: away in the second and the fourth quarter, there again at the end.
        is_shown = np.floor(progress * 4).astype(int) % 2 == 0
    else:
        raise AssertionError(f"no path for {motion}")
    return Path(offset, scale, is_shown)
