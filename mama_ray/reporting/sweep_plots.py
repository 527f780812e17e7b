"""The plots of a sweep's page: what its trials came to, how they learned, what mattered, how variants compare."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mama_ray.reporting.intervals import Interval
from mama_ray.reporting.plots import FULL, HALF, INK, MUTED, SERIES, STYLE, fit_from_zero, new_figure, to_svg

COMPLETE, PRUNED, BEST = SERIES[1], SERIES[0], SERIES[2]
Points = Sequence[tuple[float, float]]


def history_svg(complete: Points, pruned: Points, *, ylabel: str, larger_is_better: bool) -> str:
    """Draw the value of every trial over its number, and the best complete value so far as a line.

    There is at least one trial.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, "trial", ylabel)
        for points, colour, marker in ((pruned, PRUNED, "x"), (complete, COMPLETE, "o")):
            if points:
                axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=6)
        if complete:
            numbers, values = zip(*sorted(complete), strict=True)
            best = (np.maximum if larger_is_better else np.minimum).accumulate(values)
            last = max([*numbers, *(number for number, _ in pruned)])
            axes.step([*numbers, last], [*best, best[-1]], where="post", color=BEST, linewidth=1.6)
        _fit_values(axes, [value for _, value in [*complete, *pruned]])
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        return to_svg(figure)


def trial_curves_svg(
    curves: Mapping[str, Points], best: str | None, *, ylabel: str, colours: Mapping[str, str] | None = None
) -> str:
    """Draw every trial's value over its training steps, the best one's in front; one value alone is a dot.

    colours: of the trials by name, where they are more than the best one and the others.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, "training step", ylabel)
        for name, points in sorted(curves.items(), key=lambda item: item[0] == best):
            steps, values = zip(*points, strict=True)
            is_best = name == best
            colour = colours[name] if colours else BEST if is_best else SERIES[0]
            style: dict[str, Any] = {"color": colour, "alpha": 1.0 if is_best else 0.6}
            axes.plot(steps, values, marker="o", markersize=3.5, linewidth=2 if is_best else 1.2, **style)
        _fit_values(axes, [value for points in curves.values() for _, value in points])
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        return to_svg(figure)


def _fit_values(axes: Axes, values: Sequence[float]) -> None:
    """Give values that are all alike, as recalls of 0 are, an axis on which that is seen."""
    if max(values) - min(values) < 1e-9:
        fit_from_zero(axes, values)


def front_svg(points: Points, front: Points, *, xlabel: str, ylabel: str) -> str:
    """Draw two objectives against each other, the trials that no other beats in both joined by a line."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, xlabel, ylabel)
        axes.plot(*zip(*points, strict=True), "o", color=COMPLETE, markersize=6)
        axes.plot(*zip(*sorted(front), strict=True), "o-", color=BEST, markersize=6, linewidth=1.4)
        return to_svg(figure)


def intervals_svg(intervals: Mapping[str, Interval], values: Mapping[str, Sequence[float]], *, xlabel: str) -> str:
    """Draw a row per variant: its mean with its interval, its single runs beside; the first one's mean is dashed."""
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure, axes = new_figure((FULL[0], 0.9 + 0.42 * len(intervals)), xlabel, "")
        places = np.arange(len(intervals))[::-1]
        for place, (name, interval) in zip(places, intervals.items(), strict=True):
            axes.plot(values[name], [place] * len(values[name]), "o", color=SERIES[0], alpha=0.5, markersize=4)
            axes.errorbar(
                interval.mean, place, xerr=interval.half_width or 0.0, fmt="o", color=BEST, markersize=7, capsize=4
            )
        first = next(iter(intervals.values()))
        axes.axvline(first.mean, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_yticks(places, list(intervals), color=INK)
        axes.set_ylim(-0.6, len(intervals) - 0.4)
        return to_svg(figure)
