"""Confidence intervals: of means over a few runs, and of the share of queries that were answered right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit  # scipy.stats takes a second to import

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over `count` values and the half width of its confidence interval; None for one value alone."""

    mean: float
    half_width: float | None
    count: int


def wilson_interval(share: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval, low and high, of a share that was found in `count` independent trials.

    It stays within 0 and 1 and is right where a share is 0 or 1 or the count is small. Wilson (1927), Probable
    Inference, the Law of Succession, and Statistical Inference. ValueError for no trials.
    """
    if count < 1:
        raise ValueError("a share needs at least one trial")
    z = float(ndtri((1 + confidence) / 2))
    shrink = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of independent values and Student's interval around it; ValueError for no values."""
    if not len(values):
        raise ValueError("a mean needs at least one value")
    numbers = np.asarray(values, dtype=float)
    if len(numbers) == 1:
        return Interval(float(numbers[0]), None, 1)
    quantile = float(stdtrit(len(numbers) - 1, (1 + confidence) / 2))
    spread = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return Interval(float(numbers.mean()), quantile * spread, len(numbers))
