"""The report page of a sweep, from plain data: its trials, what they came to, what mattered, the variants compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup

from mama_ray.reporting import plots, sweep_plots
from mama_ray.reporting.document import PAGE_NAME, Figure, format_duration, render_template
from mama_ray.reporting.intervals import CONFIDENCE, Interval, mean_interval
from mama_ray.reporting.metrics import find_metric
from mama_ray.storage.places import Place

State = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True)
class SweepTrial:
    """One trial: its name, how it ended, a value per objective, the values at training steps on the way."""

    name: str
    number: int
    state: State
    point: Mapping[str, Any]
    values: tuple[float, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    num_steps: int | None = None
    step_s: float | None = None
    duration_s: float | None = None
    error: str = ""


@dataclass(frozen=True)
class VariantSummary:
    """A variant of an ablation: its value per seed, their interval, and the paired difference from the first one."""

    name: str
    values: Mapping[int, float]
    interval: Interval
    difference: Interval | None
    step_share: float | None


@dataclass(frozen=True)
class SweepReport:
    """A sweep: trials in the order in which they began; `variants` only for an ablation."""

    title: str
    objectives: Mapping[str, str]
    trials: tuple[SweepTrial, ...]
    best: str | None
    base: str | None = None
    importances: Mapping[str, float] = field(default_factory=dict)
    front: tuple[str, ...] = ()
    variants: tuple[VariantSummary, ...] = ()
    lead: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> list[SweepTrial]:
        """The trials that came to their last step."""
        return [trial for trial in self.trials if trial.state == "complete"]

    def named(self, name: str | None) -> SweepTrial | None:
        """Return a trial by its name."""
        return next((trial for trial in self.trials if trial.name == name), None)


def summarise_variants(trials: Sequence[SweepTrial], names: Sequence[str]) -> tuple[VariantSummary, ...]:
    """Return a summary of every variant that has a complete trial, in the order of `names`.

    Differences from the first variant are taken seed by seed, over the seeds that both have.
    """
    by_name = {name: [trial for trial in trials if trial.point["variant"] == name] for name in names}
    done = {name: [t for t in found if t.state == "complete"] for name, found in by_name.items()}
    values = {name: {t.point["seed"]: t.values[0] for t in found} for name, found in done.items() if found}
    steps = {name: [t.step_s for t in found if t.step_s] for name, found in done.items()}
    first = names[0]
    summaries = []
    for name, by_seed in values.items():
        shared = [by_seed[seed] - values[first][seed] for seed in by_seed if seed in values.get(first, {})]
        difference = mean_interval(shared) if shared and name != first else None
        timed = steps[name] and steps.get(first)
        share = mean_interval(steps[name]).mean / mean_interval(steps[first]).mean if timed else None
        summaries.append(VariantSummary(name, by_seed, mean_interval(list(by_seed.values())), difference, share))
    return tuple(summaries)


def write_sweep_report(folder: Place, report: SweepReport) -> str:
    """Write `<folder>/index.html` whole or not at all and return its URI."""
    place = folder / PAGE_NAME
    place.write_whole(render_sweep_report(report))
    return place.uri


def render_sweep_report(report: SweepReport) -> str:
    """Return the page as HTML text."""
    keys = list(dict.fromkeys(key for trial in report.trials for key in trial.point))
    return render_template(
        "sweep.html.j2",
        title=report.title,
        kind="sweep",
        lead=report.lead,
        facts=report.facts,
        is_single=False,
        report=report,
        best=report.named(report.best),
        base=report.named(report.base),
        keys=keys,
        objectives=[_label(metric) for metric in report.objectives],
        figures=_figures(report),
        variant_figure=_variant_figure(report),
        variants=report.variants,
        confidence=f"{CONFIDENCE:.0%}",
        show=show_value,
        interval=show_interval,
        duration=format_duration,
        ranked=_ranked(report),
    )


def show_value(value: Any) -> str:
    """Return a setting or a result as a table shows it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def show_interval(interval: Interval | None, *, signed: bool = False) -> str:
    """Return such as '31.5 ± 2.0', without the second part for one value alone."""
    if interval is None:
        return "–"
    text = f"{interval.mean:+.1f}" if signed else f"{interval.mean:.1f}"
    return text if interval.half_width is None else f"{text} ± {interval.half_width:.1f}"


def _figures(report: SweepReport) -> list[Figure]:
    metric, mode = next(iter(report.objectives.items()))
    label = _label(metric)
    figures = []
    complete = [(trial.number, trial.values[0]) for trial in report.complete]
    pruned = [(t.number, t.values[0]) for t in report.trials if t.state == "pruned" and t.values]
    if not report.variants and complete:
        svg = sweep_plots.history_svg(complete, pruned, ylabel=label, larger_is_better=mode == "max")
        legend = [("complete", sweep_plots.COMPLETE, False), ("best so far", sweep_plots.BEST, False)]
        legend += [("pruned, at its last validation", sweep_plots.PRUNED, False)] if pruned else []
        figures.append(Figure("Trials", Markup(svg), legend=_in_css(legend)))
    curves = {trial.name: trial.curve for trial in report.trials if trial.curve}
    if curves and not report.variants:
        svg = sweep_plots.trial_curves_svg(curves, report.best, ylabel=label)
        note = f"All {len(curves)} trials that validated, the best in front; a short line or a single dot ended early."
        figures.append(Figure("How they learned", Markup(svg), note))
    elif curves:
        figures.append(_variant_curves_figure(report, label))
    if report.front:
        figures.append(_front_figure(report))
    if report.importances:
        labels = [f"{share:.0%}" for share in report.importances.values()]
        svg = plots.bars_svg(report.importances, labels=labels, colour=plots.SERIES[0])
        note = (
            "Share of what tells good trials from others that each setting explains (PED-ANOVA); rough for few trials."
        )
        figures.append(Figure("What mattered", Markup(svg), note))
    return figures


def _variant_curves_figure(report: SweepReport, label: str) -> Figure:
    names = list(dict.fromkeys(str(trial.point["variant"]) for trial in report.trials if trial.curve))
    colours = dict(zip(names, plots.cycle_colours(len(names)), strict=True))
    curves = {trial.name: trial.curve for trial in report.trials if trial.curve}
    of_trials = {trial.name: colours[str(trial.point["variant"])] for trial in report.trials if trial.curve}
    svg = sweep_plots.trial_curves_svg(curves, None, ylabel=label, colours=of_trials)
    legend = _in_css([(name, colour, False) for name, colour in colours.items()])
    return Figure("How they learned", Markup(svg), "A line for each seed.", legend)


def _front_figure(report: SweepReport) -> Figure:
    (first, second), points = list(report.objectives)[:2], {t.name: (t.values[1], t.values[0]) for t in report.complete}
    svg = sweep_plots.front_svg(
        list(points.values()), [points[name] for name in report.front], xlabel=_label(second), ylabel=_label(first)
    )
    return Figure("What one costs of the other", Markup(svg), "Joined: the trials that no other beats in both.")


def _variant_figure(report: SweepReport) -> Figure | None:
    if not report.variants:
        return None
    intervals = {variant.name: variant.interval for variant in report.variants}
    values = {variant.name: list(variant.values.values()) for variant in report.variants}
    svg = sweep_plots.intervals_svg(intervals, values, xlabel=_label(next(iter(report.objectives))))
    note = f"Means with their {CONFIDENCE:.0%} intervals (Student's t), single runs in grey; dashed: the first variant."
    return Figure("Variants", Markup(svg), note, is_wide=True)


def _ranked(report: SweepReport) -> list[SweepTrial]:
    """Complete trials from the best on, then the others."""
    sign = -1 if next(iter(report.objectives.values())) == "max" else 1
    order = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}
    return sorted(report.trials, key=lambda t: (order[t.state], sign * t.values[0] if t.values else 0.0, t.number))


def _label(metric: str) -> str:
    unit = find_metric(metric).unit
    return f"{metric} ({unit})" if unit else metric


def _in_css(legend: list[tuple[str, str, bool]]) -> tuple[tuple[str, str, bool], ...]:
    return tuple((name, f"var(--series-{plots.SERIES.index(colour) + 1})", dashed) for name, colour, dashed in legend)
