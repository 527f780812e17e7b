"""Means of a few runs with their confidence intervals, as the report of an ablation shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over `count` values and the half width of its confidence interval; None for one value alone."""

    mean: float
    half_width: float | None
    count: int


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of independent values and Student's interval around it; ValueError for no values."""
    if not len(values):
        raise ValueError("a mean needs at least one value")
    numbers = np.asarray(values, dtype=float)
    if len(numbers) == 1:
        return Interval(float(numbers[0]), None, 1)
    quantile = float(student_t.ppf((1 + confidence) / 2, len(numbers) - 1))
    spread = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return Interval(float(numbers.mean()), quantile * spread, len(numbers))
