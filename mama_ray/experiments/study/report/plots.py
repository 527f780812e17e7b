"""The figures of a study: what it compares, what it varies, and the paper's three figures redrawn beside its own."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from mama_ray.experiments.study.report.claims import FULL, LEARNED, MAMA, full_method
from mama_ray.experiments.study.report.compare import (
    MAIN,
    METRIC,
    ORACLE,
    PLAIN,
    Experiments,
    bounds,
    compare,
    compare_runs,
    list_methods,
    select_runs,
    summarise,
    take_metric,
)
from mama_ray.experiments.study.report.drawing import (
    DASHED,
    Drawing,
    Key,
    Palette,
    colour_number,
    draw_line,
    draw_rule,
    make_panels,
    method_keys,
)
from mama_ray.experiments.study.report.paper_values import PAPER_GAINS, PAPER_TOPICS
from mama_ray.experiments.study.report.topics import gains_by_seed, join_ranks
from mama_ray.experiments.study.report.weights import read_curve
from mama_ray.experiments.study.results import StudyRun
from mama_ray.reporting.content import PAPER_WEIGHT_CURVE
from mama_ray.reporting.intervals import Interval

RECALL = "test R@1, text to video (%)"
START = "pretrained"  # so far below all others that a figure of differences leaves it out
BAND_NOTE = "Means over seeds with their 95 % intervals."


def methods_drawing(experiments: Experiments) -> Drawing | None:
    """Draw a row per method: its mean with the interval, single runs faint; dashed: the baseline and the oracle."""
    if MAIN not in experiments:
        return None
    experiment = experiments[MAIN]
    values = {method: take_metric(select_runs(experiment, method)) for method in list_methods(experiment)}
    values = {method: found for method, found in values.items() if found}
    if not values:
        return None

    gains = {
        method: compare(found, values.get(PLAIN, {}))
        for method, found in values.items()
        if method not in (PLAIN, START)
    }
    gains = {method: gain for method, gain in gains.items() if gain is not None}

    def draw(palette: Palette) -> Figure:
        labels = [RECALL, f"R@1 − {PLAIN} (points), paired"][: 2 if gains else 1]
        figure, panels = make_panels(len(labels), 0.9 + 0.34 * len(values), labels, [""] * len(labels), sharey=True)
        places = dict(zip(values, np.arange(len(values))[::-1], strict=True))
        for axes in panels:
            axes.grid(axis="x")
            axes.grid(visible=False, axis="y")
        for method, found in values.items():
            runs = list(found.values())
            panels[0].plot(runs, [places[method] - 0.25] * len(runs), "o", color=palette.muted, alpha=0.5, markersize=3)
            _draw_row(panels[0], summarise(found), places[method], palette.family(method))
        for method, gain in gains.items():
            _draw_row(panels[1], gain, places[method], palette.family(method))
        for method in (PLAIN, ORACLE):
            if method in values:
                draw_rule(panels[0], summarise(values[method]).mean, palette.method(method), is_vertical=True)
        if gains:
            draw_rule(panels[1], 0.0, palette.method(PLAIN), is_vertical=True)
            if ORACLE in gains:
                draw_rule(panels[1], gains[ORACLE].mean, palette.method(ORACLE), is_vertical=True)
        panels[0].set_yticks(list(places.values()), list(places), color=palette.ink)
        panels[0].set_ylim(-0.6, len(values) - 0.4)
        return figure

    keys = tuple(Key(method, colour_number(method), True) for method in (PLAIN, ORACLE) if method in values)
    note = f"{BAND_NOTE} Grey: single runs; their spread is mostly that of the seeds, which paired differences lose."
    return Drawing("All methods", draw, keys, note, is_wide=True)


def epochs_drawing(experiments: Experiments) -> Drawing | None:
    """Draw test R@1 over the epochs for the four methods that tell the story, with a band for the interval."""
    if MAIN not in experiments:
        return None
    experiment = experiments[MAIN]
    names = [
        name for name in (PLAIN, LEARNED, MAMA, ORACLE) if any(len(r.curve) > 1 for r in select_runs(experiment, name))
    ]
    if not names:
        return None
    curves = {name: _epoch_values(select_runs(experiment, name)) for name in names}
    start = summarise(take_metric(select_runs(experiment, START)))

    def draw(palette: Palette) -> Figure:
        labels = [RECALL, f"R@1 − {PLAIN} at the same epoch (points)"]
        figure, (left, right) = make_panels(2, 3.7, ["passes over the training clips"] * 2, labels)
        for name, curve in curves.items():
            _draw_band(left, {epoch: summarise(found) for epoch, found in curve.items()}, palette.method(name))
            if name != PLAIN and PLAIN in curves:
                plain = curves[PLAIN]
                gains = {epoch: compare(found, plain.get(epoch, {})) for epoch, found in curve.items()}
                _draw_band(right, gains, palette.method(name))
        draw_rule(right, 0.0, palette.muted)
        if start:
            draw_rule(left, start.mean, palette.muted)
        return figure

    keys = method_keys(names) + ((Key("pretrained, no fine-tuning", None, True),) if start else ())
    note = f"{BAND_NOTE} Left: the spread is mostly that of the seeds; right: paired, seed by seed."
    return Drawing("Test recall over the epochs", draw, keys, note, is_wide=True)


def weight_curve_drawing(experiments: Experiments) -> Drawing | None:
    """Draw learned weight against loss, seeds faint and their mean, over the paper's; each curve over its own peak."""
    if MAIN not in experiments:
        return None
    experiment = experiments[MAIN]
    curves = {}
    for method in dict.fromkeys((LEARNED, full_method(experiment), "joint")):
        found = [curve for run in select_runs(experiment, method) if (curve := read_curve(run))] if method else []
        if found:
            curves[method] = [(losses, weights / weights.max()) for losses, weights in found]
    if not curves:
        return None

    def draw(palette: Palette) -> Figure:
        figure, (axes,) = make_panels(1, 3.4, ["loss of the sample (nats)"], ["weight / peak weight"])
        losses, weights = np.array(PAPER_WEIGHT_CURVE).T
        axes.plot(losses, weights / weights.max(), color=palette.muted, linestyle=DASHED, linewidth=1.5)
        for method, found in curves.items():
            for xs, ys in found:
                axes.plot(xs, ys, color=palette.method(method), alpha=0.25, linewidth=1)
            left, right = max(xs[0] for xs, _ in found), min(xs[-1] for xs, _ in found)
            if left < right:
                grid = np.linspace(left, right, 60)
                mean = np.mean([np.interp(grid, xs, ys) for xs, ys in found], axis=0)
                axes.plot(grid, mean, color=palette.method(method))
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.05)
        return figure

    keys = (*method_keys(list(curves)), Key("the paper, digitised", None, True))
    note = (
        "Each run's curve (faint) is divided by its own peak; bold: mean over seeds where all have losses. The "
        "paper's models, data and loss scale are others: compare shapes, not places."
    )
    return Drawing("Learned weight against loss", draw, keys, note)


def gains_drawing(experiments: Experiments) -> Drawing | None:
    """Draw the paper's gains per task as bars and under them this study's over plain InfoNCE, on other data."""
    ours = {}
    if MAIN in experiments:
        plain = select_runs(experiments[MAIN], PLAIN)
        for method in (MAMA, FULL):
            gain = compare_runs(select_runs(experiments[MAIN], method), plain)
            if gain is not None:
                ours[f"ours: {method}"] = gain
    if not ours:
        return None
    paper = {gain.task: gain.gain for gain in PAPER_GAINS}

    def draw(palette: Palette) -> Figure:
        names = [*paper, *ours]
        figure, (axes,) = make_panels(1, 0.9 + 0.27 * len(names), ["gain (points)"], [""])
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        places = np.arange(len(names))[::-1]
        axes.barh(places[: len(paper)], list(paper.values()), height=0.6, color=palette.muted, alpha=0.55)
        means = [gain.mean for gain in ours.values()]
        halves = [gain.half_width or 0.0 for gain in ours.values()]
        error = {"ecolor": palette.ink, "elinewidth": 1.2}
        axes.barh(
            places[len(paper) :], means, height=0.6, color=palette.series[2], xerr=halves, capsize=3, error_kw=error
        )
        axes.axvline(0, color=palette.grid, linewidth=1)
        axes.set_yticks(places, names, color=palette.ink)
        return figure

    keys = (Key("paper, over the previous best of its figure", None), Key("this study, over plain InfoNCE", 2))
    note = "Different data, models and baselines: real videos there, generated clips and small models here."
    return Drawing("Gains", draw, keys, note)


def topics_drawing(experiments: Experiments) -> Drawing | None:
    """Draw improvement against the topic's share, the paper's topics left and this study's frequency ranks right."""
    if MAIN not in experiments or full_method(experiments[MAIN]) is None:
        return None
    experiment, method = experiments[MAIN], full_method(experiments[MAIN])
    gains = gains_by_seed(select_runs(experiment, method), select_runs(experiment, PLAIN))
    ranks = [rank for rank in join_ranks(gains) if rank.share > 0]
    if not ranks:
        return None

    def draw(palette: Palette) -> Figure:
        labels = ["improvement in the paper (%)", f"R@1 of {method} − {PLAIN} (points)"]
        figure, (left, right) = make_panels(
            2, 3.5, ["topic's share of the data (%)", "topic's share of the training clips (%)"], labels
        )
        left.plot([t.share for t in PAPER_TOPICS], [t.improvement for t in PAPER_TOPICS], "o", color=palette.muted)
        left.set_ylim(0, 19)
        draw_line(right, {rank.share: rank.gain for rank in ranks}, palette.method(method))
        draw_rule(right, 0.0, palette.muted)
        for axes in (left, right):
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        return figure

    note = (
        "Left: the paper's eight topics; what its improvement is of, and over what, is not said. Right: absolute "
        "points, means over seeds and 95 % intervals; topics of several seeds are joined by their frequency rank."
    )
    return Drawing("Topic share against improvement", draw, note=note, is_wide=True)


def _draw_row(axes: Axes, interval: Interval, place: float, colour: str) -> None:
    axes.errorbar(interval.mean, place, xerr=interval.half_width or 0.0, fmt="o", color=colour, markersize=6, capsize=3)


def _draw_band(axes: Axes, points: Mapping[float, Interval | None], colour: str) -> None:
    found = {x: interval for x, interval in points.items() if interval is not None}
    if found:
        low, high = np.array([bounds(interval) for interval in found.values()]).T
        axes.fill_between(list(found), low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(list(found), [interval.mean for interval in found.values()], color=colour, marker="o", markersize=4)


def _epoch_values(runs: Sequence[StudyRun]) -> dict[float, dict[int, float]]:
    """Return test R@1 by seed at every epoch that half of the runs or more have a point at."""
    values: dict[float, dict[int, float]] = {}
    for run in runs:
        for point in run.curve:
            if METRIC in point.test:
                values.setdefault(round(point.epoch, 3), {})[run.seed] = point.test[METRIC]
    return {epoch: found for epoch, found in sorted(values.items()) if 2 * len(found) >= len(runs)}
