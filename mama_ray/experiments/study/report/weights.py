"""What the weight nets of a study learned: rise and shape of weight against loss, and nets that learned nothing.

A net's scale is free (the weights of a batch are normalised), so a curve is compared with its own peak. Weights near 0
are kept to four decimals, so no logarithm is taken of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mama_ray.experiments.study.results import StudyRun

Shape = Literal["flat", "rises, then falls", "rises", "falls", "other"]

FLAT_SPAN = 1.02  # largest over smallest weight below which a curve counts as flat: all weights are alike
NEAR_PEAK = 0.02  # how far below its peak a curve's end may lie and still be its peak
COLLAPSED_SIZE = 0.05  # effective share of the batch below which a few samples make the step
ALIKE_SIZE = 0.98  # and from which on the weights do nothing


@dataclass(frozen=True)
class NetHealth:
    """How many of the runs with a weight net have one that failed, and in which way; a run may count twice."""

    num_runs: int
    num_collapsed: int
    num_alike: int
    num_rising: int
    median_size: float | None
    median_meta_ratio: float | None


def read_curve(run: StudyRun) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (losses, weights) by loss, None without two distinct losses that have finite weights."""
    points = np.array([point for point in run.weight_curve if np.isfinite(point).all()]).reshape(-1, 2)
    if len(np.unique(points[:, 0])) < 2 or points[:, 1].max() <= 0:
        return None
    points = points[np.argsort(points[:, 0], kind="stable")]
    return points[:, 0], points[:, 1]


def weight_rise(run: StudyRun) -> float | None:
    """Return how much more the half of higher losses weighs than the other, as a share of the curve's peak, in [-1, 1].

    0 weighs all samples alike, below 0 discounts high losses.
    """
    curve = read_curve(run)
    if curve is None:
        return None
    weights = curve[1] / curve[1].max()
    half = len(weights) // 2
    return float(weights[-half:].mean() - weights[:half].mean())


def rises_by_seed(runs: Sequence[StudyRun]) -> dict[int, float]:
    """Return the rise of every run that has a curve, by seed."""
    rises = {run.seed: weight_rise(run) for run in runs}
    return {seed: rise for seed, rise in rises.items() if rise is not None}


def curve_shape(run: StudyRun) -> Shape | None:
    """Return what a run's curve does from its lowest to its highest loss, None without a curve."""
    curve = read_curve(run)
    if curve is None:
        return None
    weights = curve[1] / curve[1].max()
    if weights.min() * FLAT_SPAN > 1:
        return "flat"
    left, right = weights[0] >= 1 - NEAR_PEAK, weights[-1] >= 1 - NEAR_PEAK
    if left and right:
        return "other"
    if left:
        return "falls"
    return "rises" if right else "rises, then falls"


def count_shapes(runs: Sequence[StudyRun]) -> Counter[str]:
    """Return how many runs have a curve of each shape."""
    return Counter(shape for run in runs if (shape := curve_shape(run)) is not None)


def peak_losses(runs: Sequence[StudyRun]) -> dict[int, float]:
    """Return the loss at which a curve that rises and then falls has its peak, by seed."""
    peaks = {}
    for run in runs:
        if curve_shape(run) == "rises, then falls":
            losses, weights = read_curve(run)
            peaks[run.seed] = float(losses[weights.argmax()])
    return peaks


def check_nets(runs: Sequence[StudyRun]) -> NetHealth | None:
    """Return how the weight nets of these runs fared, None if none of them has a curve."""
    netted = [run for run in runs if read_curve(run) is not None]
    if not netted:
        return None
    alike = [curve_shape(run) == "flat" or (run.effective_sample_size or 0) >= ALIKE_SIZE for run in netted]
    sizes = [run.effective_sample_size for run in netted if run.effective_sample_size is not None]
    ratios = [run.meta_loss_ratio for run in netted if run.meta_loss_ratio is not None]
    return NetHealth(
        num_runs=len(netted),
        num_collapsed=sum(size < COLLAPSED_SIZE for size in sizes),
        num_alike=sum(alike),
        num_rising=sum(curve_shape(run) == "rises" for run in netted),
        median_size=float(np.median(sizes)) if sizes else None,
        median_meta_ratio=float(np.median(ratios)) if ratios else None,
    )
