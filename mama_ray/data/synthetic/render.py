"""From facts and a scene to frames."""

import numpy as np
from jaxtyping import Float32, UInt8

from mama_ray.data.synthetic.own_facts import MORE_PAINT
from mama_ray.data.synthetic.scene import RADII, Scene
from mama_ray.data.synthetic.shapes import draw_mask
from mama_ray.data.synthetic.vocabulary import Facts

# Far apart also after 4:2:0 chroma at 48 pixels.
PAINT = {
    "red": (225, 30, 35),
    "orange": (250, 135, 20),
    "yellow": (250, 235, 40),
    "green": (35, 170, 50),
    "cyan": (60, 225, 230),
    "blue": (40, 70, 235),
    "purple": (170, 50, 200),
    "white": (250, 250, 250),
} | MORE_PAINT
# A dark rim keeps an object apart from a background of its own brightness.
_RIM_PIXELS = 1 / 48
_RIM_SHADE = 0.35


def render_frames(
    facts: Facts, scene: Scene, level: str, size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "frames size size 3"]:
    """Draw a clip; `rng` gives the grain of the noise."""
    num_frames = len(scene.paths[0].scale)
    drifts = (np.linspace(-0.5, 0.5, num_frames)[:, None] * scene.drift).astype(np.float32)
    frames = _draw_background(scene, drifts, size)
    for thing, path, centre in zip(facts, scene.paths, scene.centres, strict=True):
        paint = np.array(PAINT[thing.colour], dtype=np.float32)
        for frame in np.flatnonzero(path.is_shown):
            place = (centre + path.offset[frame] + drifts[frame]) * size
            radius = RADII[level][thing.size] * path.scale[frame] * size
            outer = draw_mask(thing.shape, size, tuple(place), radius + _RIM_PIXELS * size)
            inner = draw_mask(thing.shape, size, tuple(place), radius)
            picture = frames[frame]
            picture *= 1 - (1 - _RIM_SHADE) * outer[..., None]
            picture += inner[..., None] * (paint - picture)
    frames *= scene.brightness
    frames += _grain(num_frames, size, rng)[..., None] * np.float32(scene.noise)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def _draw_background(scene: Scene, drifts: np.ndarray, size: int) -> Float32[np.ndarray, "frames size size 3"]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x = axis[None, None, :] - drifts[:, 0, None, None]
    y = axis[None, :, None] - drifts[:, 1, None, None]
    cos, sin = np.float32(np.cos(scene.pattern_angle)), np.float32(np.sin(scene.pattern_angle))
    along, across = x * cos + y * sin, y * cos - x * sin
    wave, phase = np.float32(2 * np.pi / scene.pattern_period), np.float32(scene.pattern_phase)
    if scene.background == "plain":
        mix = np.zeros_like(along)
    elif scene.background == "gradient":
        mix = along - np.float32(0.5)
    elif scene.background == "stripes":
        mix = np.sin(along * wave + phase)
    elif scene.background == "checks":
        mix = np.tanh(4 * np.sin(along * wave + phase) * np.sin(across * wave))
    else:
        mix = np.sin(along * wave + phase) + np.sin(across * wave * np.float32(0.8) + 2 * phase)
    shades = scene.shades.astype(np.float32)
    return shades[0] + (0.5 + 0.5 * mix)[..., None] * (shades[1] - shades[0])


def _grain(num_frames: int, size: int, rng: np.random.Generator) -> Float32[np.ndarray, "frames size size"]:
    """Unit noise: one tile at another place in each frame, which costs a tenth of fresh noise and looks alike."""
    tile = rng.standard_normal((2 * size, 2 * size), dtype=np.float32)
    corners = rng.integers(0, size, size=(num_frames, 2), endpoint=True)
    return np.stack([tile[y : y + size, x : x + size] for y, x in corners])
