"""A study's figures as they are drawn: for the page in its colours, and as a PNG with a legend of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib import figure as mpl_figure
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from mama_ray.experiments.study.report.compare import Factor, bounds, show_factor
from mama_ray.reporting import plots
from mama_ray.reporting.document import Figure
from mama_ray.reporting.intervals import Interval

# The page's light colours (document.css), for pictures that stand in documents of other colours.
_PRINTED = {
    plots.INK: "#1d2126", plots.MUTED: "#68707a", plots.GRID: "#e4e3df", plots.BAND: "#eeece6",
} | dict(
    zip(plots.SERIES, ("#5b6b7f", "#2f6fd6", "#d5662a", "#1f8f67", "#8a55c7", "#b3892b"), strict=True)
)  # fmt: skip
# A method has one colour in every figure.
_METHODS = {
    "uniform": 0, "learned": 1, "mama": 2, "oracle": 3, "mama_captions": 4, "joint": 5, "pretrained": 5,
    "learned_relative": 1, "uniform_margin": 5, "oracle_margin": 3, "uniform_captions": 0,
    "learned_captions": 1,
}  # fmt: skip
# By the first word of a method's name; all others are rules.
_FAMILIES = {"uniform": 0, "pretrained": 0, "learned": 1, "mama": 2, "oracle": 3, "left": 3, "joint": 5}
_RULES = 4
DASHED = (0, (4, 3))


class Palette:
    """Colours for one way of drawing: placeholders that the page's style sheet fills in, or those of a PNG."""

    def __init__(self, *, is_printed: bool):
        colours = _PRINTED if is_printed else {colour: colour for colour in _PRINTED}
        self.ink, self.muted, self.grid, self.band = (
            colours[colour] for colour in (plots.INK, plots.MUTED, plots.GRID, plots.BAND)
        )
        self.series = tuple(colours[colour] for colour in plots.SERIES)
        self.style = {
            key: colours.get(value, value) for key, value in plots.STYLE.items() if not isinstance(value, list)
        }

    def method(self, name: str) -> str:
        """Return the colour of a method."""
        return self.series[colour_number(name)]

    def family(self, name: str) -> str:
        """Return the colour of a method's family, for rows that have their names beside them."""
        return self.series[_FAMILIES.get(name.split("_")[0], _RULES)]


@dataclass(frozen=True)
class Key:
    """An entry of a legend: `series` numbers the colours of series, None is the muted one."""

    name: str
    series: int | None
    is_dashed: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn in several ways; `draw` is called with the palette, under its style."""

    title: str
    draw: Callable[[Palette], mpl_figure.Figure]
    keys: tuple[Key, ...] = ()
    note: str = ""
    is_wide: bool = False

    def for_page(self) -> Figure:
        """Return the figure as inline SVG with its legend in HTML."""
        palette = Palette(is_printed=False)
        with mpl.rc_context(palette.style):
            svg = plots.to_svg(self.draw(palette))
        colours = ["var(--muted)" if key.series is None else f"var(--series-{key.series + 1})" for key in self.keys]
        legend = tuple((key.name, colour, key.is_dashed) for key, colour in zip(self.keys, colours, strict=True))
        return Figure(self.title, Markup(svg), self.note, legend, self.is_wide)

    def save(self, path: Path) -> Path:
        """Write the figure as a PNG on white, its legend above; returns the path."""
        palette = Palette(is_printed=True)
        with mpl.rc_context(palette.style):
            figure = self.draw(palette)
            if len(self.keys) > 1 or any(key.is_dashed for key in self.keys):
                figure.legend(
                    handles=[_handle(key, palette) for key in self.keys], loc="outside upper left", ncols=5, fontsize=9
                )
            figure.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})
        return path


def colour_number(method: str) -> int:
    """Return the number of a method's colour; one without a colour of its own has one by its name."""
    return _METHODS.get(method, sum(map(ord, method)) % len(plots.SERIES))


def method_keys(methods: Sequence[str]) -> tuple[Key, ...]:
    """Return the legend of methods."""
    return tuple(Key(method, colour_number(method)) for method in methods)


def make_panels(
    count: int, height: float, xlabels: Sequence[str], ylabels: Sequence[str], *, sharey: bool = False
) -> tuple[mpl_figure.Figure, list[Axes]]:
    """Return a figure of the page's full width with so many axes side by side; one alone has half of it."""
    width = plots.HALF[0] if count == 1 else plots.FULL[0]
    figure = mpl_figure.Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.05))
    panels = list(figure.subplots(1, count, sharey=sharey, squeeze=False)[0])
    for axes, xlabel, ylabel in zip(panels, xlabels, ylabels, strict=True):
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return figure, panels


def place_factor(axes: Axes, values: Sequence[Factor]) -> dict[Factor, float]:
    """Prepare an axis for a factor's values and return where each is drawn.

    Numbers above 0 over more than a factor of 16 lie on a logarithmic axis, others on a linear one, words and mixtures
    side by side in their order.
    """
    if all(isinstance(value, float | int) for value in values):
        if min(values) > 0 and max(values) > 16 * min(values):
            is_doubling = all(np.log2(value).is_integer() for value in values)
            axes.set_xscale("log", base=2 if is_doubling else 10)
        axes.set_xticks(list(values), _thin_labels(axes, values), minor=False)
        axes.set_xticks([], minor=True)
        axes.margins(x=0.09)
        return {value: float(value) for value in values}
    turns = sum(len(show_factor(value)) for value in values) > 44
    labels = [show_factor(value) for value in values]
    axes.set_xticks(range(len(values)), labels, rotation=20 if turns else 0, ha="right" if turns else "center")
    axes.set_xlim(-0.4, len(values) - 0.6)
    return {value: float(place) for place, value in enumerate(values)}


def draw_line(
    axes: Axes,
    points: Mapping[float, Interval | None],
    colour: str,
    *,
    shift: float = 0.0,
    is_dashed: bool = False,
    is_joined: bool = True,
) -> None:
    """Draw means, each with its interval, joined by a line or not; `shift` moves them by points of 1/72 inch."""
    found = {x: interval for x, interval in points.items() if interval is not None}
    if not found:
        return
    move = ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    means = [interval.mean for interval in found.values()]
    halves = [interval.half_width or 0.0 for interval in found.values()]
    style = {"linestyle": DASHED if is_dashed else "-", "linewidth": 1.4 if is_dashed else 1.8}
    style |= {} if is_joined else {"linestyle": "none"}
    axes.errorbar(
        list(found), means, yerr=halves, color=colour, marker="o", markersize=4.5, capsize=3, elinewidth=1.1,
        transform=axes.transData + move, **style,
    )  # fmt: skip
    # A moved artist is left out of the limits that matplotlib finds by itself.
    axes.update_datalim([(x, end) for x, interval in found.items() for end in bounds(interval)])
    axes.autoscale_view()


def draw_rule(axes: Axes, value: float, colour: str, *, is_vertical: bool = False) -> None:
    """Draw a dashed line across the axes at a value."""
    draw = axes.axvline if is_vertical else axes.axhline
    draw(value, color=colour, linestyle=DASHED, linewidth=1.2, zorder=1)


def _thin_labels(axes: Axes, values: Sequence[float]) -> list[str]:
    """Return the labels of ascending values, empty where one would touch its neighbour."""
    places = np.log(values) if axes.get_xscale() == "log" else np.asarray(values, dtype=float)
    width = axes.figure.get_figwidth() / len(axes.figure.axes)
    labels, right = [], -np.inf
    for value, place in zip(values, places, strict=True):
        label = show_factor(value)
        inches = (place - places[0]) / max(np.ptp(places), 1e-12) * (width - 1.0)
        fits = inches - 0.04 * len(label) > right + 0.06
        labels.append(label if fits else "")
        right = inches + 0.04 * len(label) if fits else right
    return labels


def _handle(key: Key, palette: Palette) -> Line2D:
    colour = palette.muted if key.series is None else palette.series[key.series]
    style = {"linestyle": DASHED, "linewidth": 1.6} if key.is_dashed else {"linewidth": 2.6}
    return Line2D([], [], color=colour, label=key.name, **style)
