"""What no caption tells: where the objects are, the background, the light, the camera and the noise."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mama_ray.data.synthetic.config import Domain
from mama_ray.data.synthetic.facts import draw
from mama_ray.data.synthetic.motion import Path, trace
from mama_ray.data.synthetic.vocabulary import Facts

RADII = {"simple": {"small": 0.13, "large": 0.22}, "full": {"small": 0.09, "large": 0.15}}
BACKGROUNDS = ("plain", "gradient", "stripes", "checks", "blobs")
# Backgrounds, range of the brightness and of the noise; None is even light.
_LIGHT: dict[Domain, tuple[tuple[str, ...], tuple[float, float] | None, tuple[float, float]]] = {
    "all": (BACKGROUNDS, (0.85, 1.1), (1, 4)),
    "source": (BACKGROUNDS[:2], None, (1, 4)),
    "shifted": (BACKGROUNDS[2:], (0.55, 0.8), (6, 10)),
}
# Side margin that the camera's drift may use up.
_MAX_DRIFT = 0.03
# A single object stays about the middle: with free places a small model from scratch learns neither shape nor motion in
# the minute that level simple is for.
_STRAY = 0.06
_PLACEMENTS = 24


@dataclass(frozen=True)
class Scene:
    """The nuisance of one clip. Lengths are shares of the picture's side, colours linear in 0..255."""

    paths: tuple[Path, ...]
    centres: Float64[np.ndarray, "objects 2"]
    background: str
    shades: Float64[np.ndarray, "2 3"]
    pattern_angle: float
    pattern_period: float
    pattern_phase: float
    brightness: float
    drift: Float64[np.ndarray, "2"]
    noise: float


def draw_scene(facts: Facts, level: str, num_frames: int, rng: np.random.Generator, *, domain: Domain = "all") -> Scene:
    """Draw everything about a clip that its facts leave open."""
    backgrounds, brightness, noise = _LIGHT[domain]
    progress = (np.arange(num_frames) + 0.5) / num_frames
    if len(facts) == 1:
        times = [progress]
    else:
        times = [np.clip(progress * len(facts) - place, 0, 1) for place in range(len(facts))]
    paths = tuple(trace(thing.motion, time, level) for thing, time in zip(facts, times, strict=True))
    radii = [RADII[level][thing.size] for thing in facts]
    # Dull and neither black nor white, so that every colour of an object stands out.
    tint = rng.uniform(-14, 14, size=3)
    grey = rng.uniform(48, 112)
    contrast = rng.uniform(10, 26) * (1 if rng.random() < 0.5 else -1)
    angle = rng.uniform(0, 2 * np.pi)
    return Scene(
        paths=paths,
        centres=_place(paths, radii, rng),
        background=draw(rng, backgrounds),
        shades=np.stack([grey + tint, grey + tint + contrast]),
        pattern_angle=rng.uniform(0, np.pi),
        pattern_period=rng.uniform(0.2, 0.45),
        pattern_phase=rng.uniform(0, 2 * np.pi),
        brightness=1.0 if brightness is None else rng.uniform(*brightness),
        drift=rng.uniform(0, _MAX_DRIFT) * np.array([np.cos(angle), np.sin(angle)]),
        noise=rng.uniform(*noise),
    )


def _place(paths: tuple[Path, ...], radii: list[float], rng: np.random.Generator) -> np.ndarray:
    """Draw places: one object about the middle; two inside the picture, meeting least of a few tries."""
    if len(paths) == 1:
        return rng.uniform(0.5 - _STRAY, 0.5 + _STRAY, size=(1, 2))
    boxes = [_box(path, radius) for path, radius in zip(paths, radii, strict=True)]
    low = np.array([_MAX_DRIFT - box[0] for box in boxes])
    high = np.array([1 - _MAX_DRIFT - box[1] for box in boxes])
    middle = (low + high) / 2
    # A path too long for the picture is centred.
    low, high = np.minimum(low, middle), np.maximum(high, middle)
    tries = rng.uniform(low, high, size=(_PLACEMENTS, len(paths), 2))
    corners = np.array(boxes)
    shared = np.minimum(tries[:, 0] + corners[0, 1], tries[:, 1] + corners[1, 1]) - np.maximum(
        tries[:, 0] + corners[0, 0], tries[:, 1] + corners[1, 0]
    )
    # They are apart when they are apart along one axis; the first such try keeps the places random.
    overlap = np.maximum(shared.min(axis=1), 0)
    return tries[int(overlap.argmin())]


def _box(path: Path, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of all that the object covers, relative to its place."""
    extent = (path.scale * radius)[:, None]
    return (path.offset - extent).min(axis=0), (path.offset + extent).max(axis=0)
