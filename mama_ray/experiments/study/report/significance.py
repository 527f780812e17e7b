"""What an interval of paired differences says beside itself: its p value, corrected, and what it could have shown."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from mama_ray.reporting.intervals import CONFIDENCE, Interval

POWER = 0.8
LEVEL = 1 - CONFIDENCE


def standard_error(interval: Interval) -> float | None:
    """Return the standard error of the mean, None for one value alone."""
    if interval.half_width is None:
        return None
    return interval.half_width / float(stdtrit(interval.count - 1, (1 + CONFIDENCE) / 2))


def p_value(interval: Interval) -> float | None:
    """Return the two-sided p value of Student's test that the mean is 0; None for one value alone."""
    error = standard_error(interval)
    if error is None:
        return None
    if error == 0:
        return 1.0 if interval.mean == 0 else 0.0
    return 2 * float(stdtr(interval.count - 1, -abs(interval.mean) / error))


def correct(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's (1979) p values of a family: below 0.05 for no true null hypothesis, in 95 % of families.

    They assume nothing about how the comparisons hang together. What has no p value takes no part.
    """
    known = [(value, place) for place, value in enumerate(p_values) if value is not None]
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, place) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        corrected[place] = highest
    return corrected


def detectable_effect(interval: Interval) -> float | None:
    """Return the smallest true difference that as many seeds with this spread tell apart from 0 four times of five.

    By the noncentral t distribution, with the spread as it was found.
    """
    error = standard_error(interval)
    if error is None:
        return None
    degrees = interval.count - 1
    edge = float(stdtrit(degrees, (1 + CONFIDENCE) / 2))
    return float(nctdtrinc(degrees, 1 - POWER, edge)) * error


def turning_mean(interval: Interval) -> float:
    """Return the mean of as many further seeds, spread as these are, at which the interval of all contains 0.

    For an interval that lies on one side of 0. The mean of all moves by half of what separates the two groups, and that
    adds to their spread, too: a quadratic equation in that distance.
    """
    count, mean = interval.count, abs(interval.mean)
    variance = count * (standard_error(interval) or 0.0) ** 2
    share = float(stdtrit(2 * count - 1, (1 + CONFIDENCE) / 2)) ** 2 / (2 * count * (2 * count - 1))
    equation = (1 / 4 - share * count / 2, -mean, mean**2 - 2 * share * (count - 1) * variance)
    distance = min(root.real for root in np.roots(equation) if root.real > 0)
    return (mean - distance) * math.copysign(1.0, interval.mean)


def show_corrected(value: float | None) -> str:
    """Return a p value in words, as tables show it."""
    if value is None or math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def show_detectable(interval: Interval | None) -> str:
    """Return the smallest effect that could have been seen, with the digits of the interval's mean."""
    effect = None if interval is None else detectable_effect(interval)
    return "–" if not effect else f"{effect:.1f}" if effect >= 0.95 else f"{effect:.2f}"


def corrected_of(intervals: Sequence[Interval | None]) -> list[float | None]:
    """Return Holm's p values of a family of intervals; None where there is none.

    An interval that is there twice is that of the same runs in two experiments: one comparison.
    """
    known = list(dict.fromkeys(interval for interval in intervals if interval is not None))
    values = dict(zip(known, correct([p_value(interval) for interval in known]), strict=True))
    return [None if interval is None else values[interval] for interval in intervals]


def is_told_apart(value: float | None) -> bool:
    """Whether a corrected p value is below the level."""
    return value is not None and bool(np.less(value, LEVEL))
