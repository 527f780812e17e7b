"""Outlines of the shapes and their anti-aliased masks.

Outlines lie in the unit circle, y down. Masks are drawn four times too large with PIL and reduced, which is faster than
evaluating distances and smooth enough for motions of a fraction of a pixel.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw

_OVERSAMPLING = 4
_CURVE_POINTS = 40
_RING_HOLE = 0.52


def draw_mask(shape: str, size: int, centre: tuple[float, float], radius: float) -> Float32[np.ndarray, "size size"]:
    """Return the shape's coverage of each pixel, 0 to 1.

    Args:
        shape: one of facts.SHAPES.
        size: side of the square picture in pixels.
        centre: (x, y) in pixels; may lie outside.
        radius: in pixels.
    """
    canvas = Image.new("L", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    # PIL counts pixel centres as whole numbers.
    middle = np.asarray(centre) * _OVERSAMPLING - 0.5
    for outline, ink in _outlines(shape):
        pen.polygon((outline * (radius * _OVERSAMPLING) + middle).ravel().tolist(), fill=ink)
    return np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32) / 255


@lru_cache(maxsize=32)
def _outlines(shape: str) -> tuple[tuple[np.ndarray, int], ...]:
    """Return the polygons to fill, later ones over earlier ones, each (points, 2) with 255 for ink and 0 for a hole."""
    circle = _polygon(_CURVE_POINTS)
    if shape == "circle":
        return ((circle * 0.95, 255),)
    if shape == "ring":
        return ((circle, 255), (circle * _RING_HOLE, 0))
    if shape == "square":
        return ((_polygon(4, turn=0.125) * 1.15, 255),)
    if shape == "triangle":
        return ((_polygon(3) * 1.1 + np.array([0, 0.2]), 255),)
    if shape == "star":
        return ((_star(5, inner=0.42) * 1.12, 255),)
    if shape == "cross":
        return ((_cross(arm=0.3), 255),)
    if shape == "crescent":
        return ((circle, 255), (circle * 0.85 + np.array([0.45, -0.1]), 0))
    if shape == "heart":
        return ((_heart(), 255),)
    raise AssertionError(f"no outline for {shape}")


def _polygon(num_points: int, turn: float = 0.0) -> np.ndarray:
    """Regular polygon with a corner at the top; `turn` in whole turns."""
    angles = 2 * np.pi * (np.arange(num_points) / num_points + turn) - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(num_points: int, inner: float) -> np.ndarray:
    star = _polygon(2 * num_points)
    star[1::2] *= inner
    return star


def _cross(arm: float) -> np.ndarray:
    corner = [(arm, -1), (arm, -arm), (1, -arm)]
    quarters = [[(x, y), (-y, x), (-x, -y), (y, -x)][turn] for turn in range(4) for x, y in corner]
    return np.array(quarters, dtype=np.float64)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, _CURVE_POINTS, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2], axis=1) / 16
