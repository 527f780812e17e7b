"""The report page of an audit: weight against loss, and the pairs that a run trusts least, to be looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from mama_ray.reporting import plots
from mama_ray.reporting.document import PAGE_NAME, Figure, render_template
from mama_ray.reporting.strips import strip_data_uri
from mama_ray.storage.places import Place

_MAX_POINTS = 1500  # of a group: an SVG of more is slow to show and no clearer
_MAX_TOPICS = 16


@dataclass(frozen=True)
class SuspectPair:
    """A clip and the caption that the audit would leave out; frames are None where it cannot be read."""

    clip_id: str
    caption: str
    source: str
    reason: str
    frames: UInt8[np.ndarray, "frames height width channels"] | None
    better: str | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """An audit: (loss, weight) of captions by source, mean weight by topic, and the worst pairs."""

    title: str
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    topics: Mapping[str, float]
    suspects: tuple[SuspectPair, ...]
    num_suspects: int
    facts: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


def write_audit_report(folder: Place, report: AuditReport) -> str:
    """Write `<folder>/index.html` whole or not at all and return its URI."""
    place = folder / PAGE_NAME
    place.write_whole(render_audit_report(report))
    return place.uri


def render_audit_report(report: AuditReport) -> str:
    """Return the page as HTML text."""
    return render_template(
        "audit.html.j2",
        title=report.title,
        kind="audit",
        lead="",
        facts=report.facts,
        is_single=False,
        report=report,
        figures=_figures(report),
        strip=strip_data_uri,
    )


def _figures(report: AuditReport) -> list[Figure]:
    figures = []
    points = {name: pair for name, pair in report.points.items() if len(pair[0])}
    if points:
        legend = tuple((name, f"var(--series-{n % len(plots.SERIES) + 1})", False) for n, name in enumerate(points))
        note = "A dot is a clip's judged caption: means over what the run recorded; a weight of 1 is uniform."
        figures.append(Figure("Weight against loss", Markup(scatter_svg(points)), note, legend))
    if report.topics:
        worst = dict(sorted(report.topics.items(), key=lambda item: item[1])[:_MAX_TOPICS])
        note = "The topics with the least weight first." if len(report.topics) > _MAX_TOPICS else ""
        figures.append(
            Figure(
                "Mean weight by topic",
                Markup(plots.bars_svg(worst, digits=2, reference=1.0, colour=plots.SERIES[0])),
                note,
            )
        )
    return figures


def scatter_svg(points: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Draw weight against loss, a colour for each group, of large groups a part drawn at random."""
    rng = np.random.default_rng(0)
    with mpl.rc_context(plots.STYLE):
        figure, axes = plots.new_figure(plots.HALF, "mean loss (nats)", "mean weight (1 = uniform)")
        axes.axhline(1.0, color=plots.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for colour, (losses, weights) in zip(plots.cycle_colours(len(points)), points.values(), strict=True):
            shown = np.arange(len(losses))
            if len(shown) > _MAX_POINTS:
                shown = rng.choice(shown, size=_MAX_POINTS, replace=False)
            xs, ys = np.asarray(losses)[shown], np.asarray(weights)[shown]
            axes.plot(xs, ys, "o", color=colour, markersize=2.5, alpha=0.6, markeredgewidth=0)
        return plots.to_svg(figure)
