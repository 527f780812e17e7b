"""Which frames of a clip a captioner is shown: Q of them in time order, by motion, by density, or evenly.

Every method answers with exactly Q indices. Where it finds fewer frames worth showing (a still clip has no peak of
motion) evenly spread ones fill up, and where the clip has fewer than Q frames some are repeated; both are counted.
MAMA (ECCV 2024), appendix; the rules are those of its code and of an account of its paper, written anew.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8
from pydantic import Field

from mama_ray.config import Config

_BLUR_RADIUS = 4  # a kernel of 9 x 9
_BLUR_SIGMA = 1.7  # what image libraries take for that kernel: 0.3 * ((9 - 1) / 2 - 1) + 0.8
_BLURRED_PIXELS = 1 << 15  # at a time: what a core's own cache holds in float64, with what the blur makes of it
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_BASELINE_DEGREE = 2
_BASELINE_ROUNDS = 100
_THUMBNAIL_SIZE = 8


class KeyFrameConfig(Config):
    """How key frames are chosen."""

    method: Literal["motion_peaks", "density_peaks", "uniform"] = "motion_peaks"
    """motion_peaks: local peaks of the number of pixels that brighten; density_peaks: frames that stand for many alike
    and are unlike each other; uniform: centres of equal segments."""

    num_frames: int = Field(12, ge=1)
    """Key frames per clip, Q."""

    threshold: float = Field(0.3, ge=0.0, le=1.0)
    """Height above which a peak of motion counts, as a share of the range of the motion curve."""

    num_neighbours: int = Field(5, ge=1)
    """Nearest frames that a frame's density is taken over."""


@dataclass(frozen=True)
class KeyFrames:
    """The chosen frames of one clip.

    Attributes:
        indices: int64 (Q,), ascending, of the frames that were offered; repeated only where they are fewer than Q.
        num_filled: how many of them the method did not choose itself.
    """

    indices: Int64[np.ndarray, " key_frames"]
    num_filled: int


def choose_key_frames(frames: UInt8[np.ndarray, "frames height width 3"], config: KeyFrameConfig) -> KeyFrames:
    """Choose `config.num_frames` of the frames. Raises ValueError for a clip without frames."""
    if len(frames) == 0:
        raise ValueError("key frames of a clip: got 0 frames, wanted at least 1")
    match config.method:
        case "motion_peaks":
            found = _thin_out(motion_peaks(motion_curve(frames), config.threshold), config.num_frames)
        case "density_peaks":
            found = density_peaks(thumbnails(frames), config.num_frames, config.num_neighbours)
        case "uniform":
            found = _uniform(len(frames), config.num_frames)
    indices = _fill_up(found, len(frames), config.num_frames)
    return KeyFrames(indices, num_filled=len(indices) - len(found))


def motion_curve(frames: UInt8[np.ndarray, "frames height width 3"]) -> Int64[np.ndarray, " frames"]:
    """Return the number of pixels that are brighter than in the frame before, after a blur; 0 for the first frame."""
    counts = np.zeros(len(frames), np.int64)
    # Some at a time: the blur is in float64, and a call of numpy takes longer than a small frame.
    step = max(1, _BLURRED_PIXELS // frames[0].shape[0] // frames[0].shape[1])
    previous = None
    for start in range(0, len(frames), step):
        current = _blur(_grey(frames[start : start + step]))
        if previous is not None:
            counts[start] = np.count_nonzero(current[0] > previous)
        counts[start + 1 : start + len(current)] = np.count_nonzero(current[1:] > current[:-1], axis=(1, 2))
        previous = current[-1]
    return counts


def motion_peaks(curve: Int64[np.ndarray, " frames"], threshold: float) -> Int64[np.ndarray, " peaks"]:
    """Return the local maxima of the curve over its baseline that reach above min + threshold * (max - min)."""
    if len(curve) < 3:
        return np.empty(0, np.int64)
    # Rounded, or a curve that is its own baseline would have peaks of rounding errors.
    heights = np.round(curve - _baseline(curve.astype(np.float64)), 6)
    floor = heights.min() + threshold * (heights.max() - heights.min())
    rises = np.diff(heights) > 0
    is_peak = rises[:-1] & ~rises[1:] & (heights[1:-1] > floor)  # the ends of the clip are no peaks
    return np.flatnonzero(is_peak) + 1


def density_peaks(
    features: Float[np.ndarray, "frames dim"], num_frames: int, num_neighbours: int
) -> Int64[np.ndarray, " peaks"]:
    """Return the frames of largest density times distance (Rodriguez and Laio, Science 2014), ascending.

    The density of a frame is exp(-mean squared distance to its nearest neighbours); its distance is that to the nearest
    frame of higher density, for the densest the largest there is. Distances are divided by their mean, so that the
    result does not depend on the features' scale. Frames at distance 0 of a denser one stand for nothing new and are
    not chosen.
    """
    squared = ((features[:, None, :].astype(np.float64) - features[None, :, :]) ** 2).sum(axis=-1)
    mean = squared.mean()
    if mean == 0:
        return np.zeros(1, np.int64)
    distances = np.sqrt(squared / mean)
    num_neighbours = min(num_neighbours, len(features) - 1)
    nearest = np.sort(distances**2, axis=1)[:, 1 : num_neighbours + 1]
    density = np.exp(-nearest.mean(axis=1))
    order = np.argsort(-density, kind="stable")  # of two equally dense the earlier is the denser
    separation = np.empty(len(features))
    separation[order[0]] = distances[order[0]].max()
    for place in range(1, len(order)):
        separation[order[place]] = distances[order[place], order[:place]].min()
    scores = density * separation
    best = np.argsort(-scores, kind="stable")[:num_frames]
    return np.sort(best[scores[best] > 0])


def thumbnails(frames: UInt8[np.ndarray, "frames height width 3"]) -> Float[np.ndarray, "frames dim"]:
    """Return a feature of each frame: the mean colours of a coarse grid of its cells, in [0, 1]."""
    rows = _cell_edges(frames.shape[1])
    columns = _cell_edges(frames.shape[2])
    features = []
    for frame in frames:
        sums = np.add.reduceat(np.add.reduceat(frame.astype(np.float64), rows[:-1], axis=0), columns[:-1], axis=1)
        cells = np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None]
        features.append((sums / cells / 255).reshape(-1))
    return np.stack(features)


def _cell_edges(size: int) -> np.ndarray:
    return np.linspace(0, size, min(_THUMBNAIL_SIZE, size) + 1).astype(np.int64)


def _grey(frames: UInt8[np.ndarray, "frames height width 3"]) -> np.ndarray:
    return np.rint(frames @ _LUMA)


def _blur(grey: Float[np.ndarray, "frames height width"]) -> np.ndarray:
    """Blur by a Gaussian and round to whole levels, so that noise below one level is no motion."""
    offsets = np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    kernel = np.exp(-(offsets**2) / (2 * _BLUR_SIGMA**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (_BLUR_RADIUS, _BLUR_RADIUS)
        padded = np.moveaxis(np.pad(grey, padding, mode="symmetric"), axis, 0)
        size = grey.shape[axis]
        # One after the other, left to right: the order of the terms is part of the result.
        blurred = kernel[0] * padded[:size]
        for shift, weight in enumerate(kernel[1:], start=1):
            blurred += weight * padded[shift : shift + size]
        grey = np.moveaxis(blurred, 0, axis)
    return np.rint(grey)


def _baseline(curve: np.ndarray) -> np.ndarray:
    """Return a parabola under the curve: fitted again and again to what does not rise above the last fit."""
    places = np.linspace(-1, 1, len(curve))
    powers = np.vander(places, min(_BASELINE_DEGREE, len(curve) - 1) + 1)
    basis, _ = np.linalg.qr(powers)  # least squares in a basis of unit vectors is a projection
    clipped = curve
    fit = curve
    for _ in range(_BASELINE_ROUNDS):
        earlier, fit = fit, basis @ (basis.T @ clipped)
        if np.abs(fit - earlier).max() <= 1e-3 * max(1.0, np.abs(earlier).max()):
            break
        clipped = np.minimum(clipped, fit)
    return fit


def _thin_out(peaks: np.ndarray, num_frames: int) -> np.ndarray:
    """Keep at most `num_frames` peaks, spread evenly over their order."""
    if len(peaks) <= num_frames:
        return peaks
    return peaks[np.rint(np.linspace(0, len(peaks) - 1, num_frames)).astype(np.int64)]


def _uniform(num_offered: int, num_frames: int) -> Int64[np.ndarray, " key_frames"]:
    """Return centres of equal segments, without repetition."""
    centres = (np.arange(num_frames) + 0.5) * num_offered / num_frames
    return np.unique(centres.astype(np.int64))


def _fill_up(found: np.ndarray, num_offered: int, num_frames: int) -> Int64[np.ndarray, " key_frames"]:
    """Add evenly spread frames that are not among `found`, then repeat frames where there are no more."""
    missing = num_frames - len(found)
    others = np.setdiff1d(np.arange(num_offered), found)
    chosen = np.concatenate([found, others[_uniform(len(others), missing)]]) if missing and len(others) else found
    missing = num_frames - len(chosen)
    if missing:  # every frame is taken: spread the repetitions
        chosen = np.concatenate([chosen, (np.arange(missing) * num_offered) // missing])
    return np.sort(chosen).astype(np.int64)
