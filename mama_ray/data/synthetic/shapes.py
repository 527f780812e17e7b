"""Anti-aliased masks of the shapes, by supersampling a small window around the object."""

import numpy as np
from jaxtyping import Bool, Float

SUPERSAMPLING = 4
# Points of a shape lie within this many radii of its centre, heart and star included.
_REACH = 1.2


def draw_mask(
    shape: str,
    centre: tuple[float, float],
    radius: float,
    angle: float,
    image_size: int,
) -> tuple[slice, slice, Float[np.ndarray, "height width"]]:
    """Return rows, columns and the covered share, 0 to 1, of each pixel in that window.

    `centre` is (x, y) in pixels, `radius` in pixels, `angle` in radians. The window is cut at the image's edges and empty
    for an object outside of it.
    """
    reach = _REACH * radius
    (x, y) = centre
    left, right = _clip_range(x - reach, x + reach, image_size)
    top, bottom = _clip_range(y - reach, y + reach, image_size)
    offsets = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING
    columns = ((np.arange(left, right)[:, None] + offsets).reshape(-1) - x) / radius
    rows = ((np.arange(top, bottom)[:, None] + offsets).reshape(-1) - y) / radius
    cosine, sine = np.cos(angle), np.sin(angle)
    inside = is_inside(
        shape,
        cosine * columns + sine * rows[:, None],
        cosine * rows[:, None] - sine * columns,
    )
    cells = inside.reshape(bottom - top, SUPERSAMPLING, right - left, SUPERSAMPLING)
    return (
        slice(top, bottom),
        slice(left, right),
        cells.mean(axis=(1, 3), dtype=np.float32),
    )


def is_inside(
    shape: str,
    x: Float[np.ndarray, "height width"],
    y: Float[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Tell which points lie in the shape of radius 1 around 0; x points right, y down."""
    if shape == "circle":
        return x * x + y * y < 0.9
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) < 0.82
    if shape == "triangle":
        return (y < 0.8) & (np.abs(x) < 0.58 * (y + 1.0))
    if shape == "star":
        return _is_inside_star(x, y, outer=1.15, inner=0.45)
    if shape == "cross":
        wide, high = np.abs(x), np.abs(y)
        return ((wide < 0.32) & (high < 1.0)) | ((high < 0.32) & (wide < 1.0))
    if shape == "ring":
        squared = x * x + y * y
        return (squared < 1.0) & (squared > 0.3)
    if shape == "heart":
        x, y = 1.15 * x, 0.1 - 1.15 * y
        body = x * x + y * y - 1.0
        return body * body * body < x * x * y * y * y
    if shape == "crescent":
        return (x * x + y * y < 1.0) & ((x - 0.55) ** 2 + y * y > 0.64)
    raise AssertionError(f"no mask for shape {shape}")


def _is_inside_star(
    x: np.ndarray, y: np.ndarray, *, outer: float, inner: float
) -> np.ndarray:
    """Five points, one of them up: fold the plane into one tenth, where the outline is a straight line."""
    tenth = np.pi / 5
    turned = np.arctan2(x, -y) % (2 * tenth)
    folded = np.minimum(turned, 2 * tenth - turned)
    dx, dy = inner * np.cos(tenth) - outer, inner * np.sin(tenth)
    return np.hypot(x, y) * (dy * np.cos(folded) - dx * np.sin(folded)) < dy * outer


def _clip_range(low: float, high: float, size: int) -> tuple[int, int]:
    start = min(max(int(np.floor(low)), 0), size)
    return start, max(start, min(int(np.ceil(high)), size))
