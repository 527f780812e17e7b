"""Plots as inline SVG that follow the page's colours, light or dark.

The one design fact: matplotlib draws in placeholder colours which are replaced by CSS variables, and text stays text,
so the page's style sheet decides font and colour and nothing outside the page is needed. Figures use matplotlib's
object interface: no global state, no display.
"""

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mama_ray.reporting.content import PAPER_WEIGHT_CURVE, TopicRecall

# Placeholders: colours that no plot would use by chance, and the CSS that stands in for each.
INK, MUTED, GRID, BAND = "#010203", "#010204", "#010205", "#010206"
SERIES = ("#020101", "#020102", "#020103", "#020104", "#020105", "#020106")
_CSS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", BAND: "var(--band)"}
_CSS |= {colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mama_ray",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}
HALF, FULL = (5.4, 3.1), (11.0, 3.6)

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def curves_svg(series: Series, *, xlabel: str, ylabel: str, is_noisy: bool = False, from_zero: bool = False) -> str:
    """Draw one line per named (x, y); a noisy one as a running mean with the raw line faint behind it."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, xlabel, ylabel)
        for colour, (xs, ys) in zip(cycle_colours(len(series)), series.values(), strict=True):
            window = len(ys) // 20
            if is_noisy and window > 1:
                axes.plot(xs, ys, color=colour, alpha=0.22, linewidth=1)
                axes.plot(xs, running_mean(ys, window), color=colour)
            else:
                axes.plot(xs, ys, color=colour, marker="o" if len(ys) < 40 else None, markersize=3.5)
        if from_zero:
            fit_from_zero(axes, [y for _, ys in series.values() for y in ys])
        return to_svg(figure)


def weight_curve_svg(curves: Series, *, shows_paper: bool) -> str:
    """Draw learned weight against loss, each curve divided by its own peak so that shapes can be compared.

    The axes fit the run's own losses; of the paper's curve only what lies there is seen.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, "loss of the sample (nats)", "weight / peak weight")
        left, right = loss_range(curves)
        heights = [1.0]
        if shows_paper:
            losses, weights = np.array(PAPER_WEIGHT_CURVE).T
            shares = weights / weights.max()
            axes.plot(losses, shares, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.5)
            heights += list(shares[(losses >= left) & (losses <= right)])
        for name, colour in zip(curves, cycle_colours(len(curves)), strict=True):
            losses, weights = (np.asarray(values, dtype=float) for values in curves[name])
            shares = weights / weights.max(initial=1e-12)
            axes.plot(losses, shares, color=colour)
            heights += list(shares)
        margin = 0.03 * (right - left) or 0.1
        axes.set_xlim(max(0.0, left - margin), right + margin)
        low = min(heights)
        axes.set_ylim(max(0.0, low - 0.1 * (1 - low) - 0.005), 1 + 0.1 * (1 - low) + 0.005)
        return to_svg(figure)


def loss_range(curves: Series) -> tuple[float, float]:
    """Return the smallest and the largest loss at which a weight was learned; (0, 1) where none was."""
    losses = [loss for found, _ in curves.values() for loss in found]
    return (float(min(losses)), float(max(losses))) if losses else (0.0, 1.0)


def fit_from_zero(axes: Axes, values: Sequence[float], *, empty_top: float = 10.0) -> None:
    """Let the y axis begin at 0; where all values are 0 it ends at `empty_top`, not at some hundredth."""
    top = max((value for value in values if np.isfinite(value)), default=0.0)
    axes.set_ylim(0, top * 1.06 if top > 0 else empty_top)


def bars_svg(
    values: Mapping[str, float],
    *,
    unit: str = "",
    reference: float | None = None,
    digits: int = 1,
    labels: Sequence[str] | None = None,
    colour: str | None = None,
) -> str:
    """Draw one horizontal bar per name with its value, or its label, written at the end; the reference is dashed.

    Names that are runs have a colour each; parts of one whole take the one of `colour`.
    """
    labels = labels or [f"{number:.{digits}f}{unit}" for number in values.values()]
    with mpl.rc_context(STYLE | {"axes.grid": False, "axes.spines.bottom": False}):
        figure, axes = new_figure((HALF[0], 0.5 + 0.44 * len(values)), "", "")
        places = np.arange(len(values))[::-1]
        numbers = list(values.values())
        axes.barh(places, numbers, height=0.62, color=colour or cycle_colours(len(values)))
        top = max([*numbers, reference or 0.0, 1e-12])
        for place, number, label in zip(places, numbers, labels, strict=True):
            axes.text(number + 0.015 * top, place, label, va="center", color=INK)
        if reference is not None:
            axes.axvline(reference, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_yticks(places, list(values), color=INK)
        axes.set_xticks([])
        axes.set_xlim(0, top * 1.18)
        return to_svg(figure)


def kinds_svg(
    weights: Mapping[str, Mapping[str, float]], *, ylabel: str = "mean weight (1 = uniform)", reference: float = 1.0
) -> str:
    """Draw the mean weight of each kind of caption, or another number, a bar per run; the reference is dashed."""
    kinds = sorted({kind for found in weights.values() for kind in found})
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, "", ylabel)
        width = 0.72 / max(1, len(weights))
        for number, (colour, found) in enumerate(zip(cycle_colours(len(weights)), weights.values(), strict=True)):
            places = np.arange(len(kinds)) + (number - (len(weights) - 1) / 2) * width
            heights = [found.get(kind, np.nan) for kind in kinds]
            axes.bar(places, heights, width=width * 0.9, color=colour)
            for place, height in zip(places, heights, strict=True):
                if np.isfinite(height):
                    axes.text(place, height, f"{height:.2f}", ha="center", va="bottom", fontsize=8.5)
        axes.axhline(reference, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_xticks(np.arange(len(kinds)), kinds, color=INK)
        axes.margins(y=0.12)
        return to_svg(figure)


def topics_svg(topics: Mapping[str, Sequence[TopicRecall]]) -> str:
    """Draw recall per topic, a dot per run, over bars of the topic's training clips, most frequent first."""
    first = next(found for found in topics.values() if found)
    order = [topic.topic for topic in sorted(first, key=lambda topic: (-topic.num_train, topic.topic))]
    counts = {topic.topic: topic.num_train for topic in first}
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(FULL, "", "R@1, text to video (%)")
        behind = axes.twinx()
        behind.bar(range(len(order)), [counts[topic] for topic in order], width=0.78, color=BAND)
        behind.set_ylabel("training clips")
        behind.grid(visible=False)
        axes.set_zorder(2)
        axes.patch.set_visible(False)
        for number, (colour, found) in enumerate(zip(cycle_colours(len(topics)), topics.values(), strict=True)):
            recall = {topic.topic: topic.recall for topic in found}
            places = np.arange(len(order)) + (number - (len(topics) - 1) / 2) * 0.2
            values = [recall.get(topic, np.nan) for topic in order]
            axes.vlines(places, 0, values, color=colour, linewidth=1.4, alpha=0.55)
            axes.plot(places, values, "o", color=colour, markersize=6.5, clip_on=False)
        fit_from_zero(axes, [topic.recall for found in topics.values() for topic in found])
        turns = len(order) > 8 or max(map(len, order)) > 14
        axes.set_xticks(range(len(order)), order, rotation=30 if turns else 0, ha="right" if turns else "center")
        axes.tick_params(axis="x", labelcolor=INK)
        return to_svg(figure)


def histogram_svg(counts: Sequence[int], *, xlabel: str, ylabel: str, has_tail: bool) -> str:
    """Draw a bar per whole number from 0 on; with a tail the last bar stands for all larger ones too."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, xlabel, ylabel)
        axes.bar(range(len(counts)), counts, width=0.86, color=SERIES[0])
        axes.set_xlim(-0.6, max(len(counts), 2) - 0.4)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        last = len(counts) - 1
        ticks = [tick for tick in MaxNLocator(8, integer=True).tick_values(0, max(last, 1)) if 0 <= tick <= last]
        if has_tail:  # its own tick, and none so near that the two would touch
            ticks = [tick for tick in ticks if tick < 0.93 * last] + [last]
        axes.set_xticks(ticks, [f"{tick:.0f}" + ("+" if has_tail and tick == last else "") for tick in ticks])
        return to_svg(figure)


def steps_svg(points: Sequence[tuple[float, int]], *, xlabel: str, ylabel: str) -> str:
    """Draw a count that holds from one (x, count) to the next, from zero; the last point ends it."""
    xs, counts = zip(*points, strict=True)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(HALF, xlabel, ylabel)
        axes.fill_between(xs, counts, step="post", color=SERIES[0], alpha=0.14, linewidth=0)
        axes.step(xs, counts, where="post", color=SERIES[0])
        axes.set_xlim(xs[0], max(xs[-1], xs[0] + 1e-9))
        axes.set_ylim(0, max(counts) * 1.12 + 0.1)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return to_svg(figure)


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Return the centred mean over `window` points, over fewer at the ends."""
    kernel, numbers = np.ones(window), np.asarray(values, dtype=float)
    return np.convolve(numbers, kernel, "same") / np.convolve(np.ones(len(numbers)), kernel, "same")


def new_figure(size: tuple[float, float], xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Return a figure of `size` inches with one pair of labelled axes; call it under STYLE."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return figure, axes


def cycle_colours(count: int) -> list[str]:
    """Return the colours of so many series, in their order."""
    return [SERIES[number % len(SERIES)] for number in range(count)]


def to_svg(figure: Figure) -> str:
    """Return an <svg> element that scales with its container and has neither prologue, date nor fixed colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]+"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]+"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    for colour, css in _CSS.items():
        text = text.replace(colour, css)
    # Inline figures share one document: an id must not be another figure's.
    salt = f"f{zlib.crc32(text.encode()):08x}"
    return re.sub(r'((?:id="|url\(#|href="#))', rf"\g<1>{salt}-", text)
