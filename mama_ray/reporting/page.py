"""The report: one self-contained HTML page for a run, or for several runs beside each other.

Pure: `render_report` takes plain data (content.py) and returns text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mama_ray.errors import UserError
from mama_ray.reporting import plots
from mama_ray.reporting.content import PAPER_WEIGHT_CURVE, Report, RunReport
from mama_ray.reporting.document import PAGE_NAME, Figure, format_duration, render_template
from mama_ray.reporting.intervals import CONFIDENCE, wilson_interval
from mama_ray.reporting.strips import strip_data_uri
from mama_ray.storage.places import Place

MAX_RETRIEVALS = 6
FEW_QUERIES = 1000  # an interval over more is narrower than what a page shows beside a difference of methods
PAPER_PEAK = max(PAPER_WEIGHT_CURVE, key=lambda point: point[1])[0]
# (key of the metric, head of the column, is a larger value better, digits)
COLUMNS = (
    ("t2v_R@1", "R@1", True, 1), ("t2v_R@5", "R@5", True, 1), ("t2v_R@10", "R@10", True, 1),
    ("t2v_median_rank", "median", False, 1), ("v2t_R@1", "R@1", True, 1), ("v2t_R@5", "R@5", True, 1),
    ("v2t_R@10", "R@10", True, 1), ("v2t_median_rank", "median", False, 1),
)  # fmt: skip
CURVES = (
    ("train/unweighted_loss", "Training loss", "loss before weights (nats)", True),
    ("train/task_loss", "Loss of the answers", "task loss before weights (nats)", True),
    ("val/accuracy", "Accuracy on the validation split", "right answers (%)", False),
    ("val/t2v_R@1", "Recall on the validation split", "R@1, text to video (%)", False),
    ("meta/loss", "Meta loss", "loss after the lookahead (nats)", True),
    ("weights/effective_sample_size", "Effective sample size of the weights", "share of the batch (1 = uniform)", True),
)


@dataclass(frozen=True)
class Cell:
    """A table cell; `share` of 0 to 1 draws a bar behind it."""

    text: str
    is_best: bool = False
    share: float | None = None
    interval: str = ""


def render_report(report: Report) -> str:
    """Return the page as HTML text. Raises UserError where its runs were evaluated on different benchmarks."""
    return render_template(
        "report.html.j2",
        title=report.title,
        benchmark=benchmark_of(report.runs),
        kind="report",
        lead=report.lead,
        facts=report.facts,
        is_single=len(report.runs) == 1,
        report=report,
        runs=list(zip(report.runs, (_colour(number) for number in range(len(report.runs))), strict=True)),
        rows=metric_rows(report.runs, report.num_queries),
        query_note=query_note(report.num_queries),
        cost_rows=cost_rows(report.runs),
        shows_recall=shows_recall(report.runs),
        chance=100 / report.num_gallery if report.num_gallery else None,
        overview=overview_figures(report.runs),
        figures=training_figures(report.runs),
        weight_figures=weight_figures(report),
        topic_figures=topic_figures(report.runs),
        has_head_tail=any(run.head_recall is not None or run.tail_recall is not None for run in report.runs),
        retrievals=[(run.name, run.retrievals[:MAX_RETRIEVALS]) for run in report.runs if run.retrievals],
        strip=strip_data_uri,
        fact_names=list(dict.fromkeys(name for run in report.runs for name in run.facts)),
    )


def write_report(folder: Place, report: Report) -> str:
    """Write `<folder>/index.html` whole or not at all and return its URI."""
    place = folder / PAGE_NAME
    place.write_whole(render_report(report))
    return place.uri


def benchmark_of(runs: Sequence[RunReport]) -> str:
    """Return what the runs were evaluated on, "" where none was; one table cannot hold two benchmarks."""
    names = {run.name: run.benchmark for run in runs if run.metrics}
    if len(set(names.values())) > 1:
        raise UserError(
            "results of different benchmarks cannot share a table",
            got="; ".join(f"{run} on {benchmark}" for run, benchmark in names.items()),
            wanted="one benchmark, whole or with the same clips missing",
            remedy="evaluate the runs alike, or write a page for each benchmark",
        )
    return next(iter(names.values()), "")


def shows_recall(runs: Sequence[RunReport]) -> bool:
    """Whether there is a recall to show, or a run that is to have one: what answers questions need not."""
    return any(run.metrics for run in runs) or not any(run.answering for run in runs)


def metric_rows(runs: Sequence[RunReport], num_queries: Mapping[str, int] | None = None) -> list[list[Cell]]:
    """Return a row of recall cells per run, the best of each column marked when there is something to choose.

    A recall over few queries has its interval with it.
    """
    rows = [[] for _ in runs]
    for key, _, larger_is_better, digits in COLUMNS:
        values = [run.metrics.get(key) for run in runs]
        known = [value for value in values if value is not None]
        best = (max if larger_is_better else min)(known) if len(set(known)) > 1 else None
        for row, value in zip(rows, values, strict=True):
            text = "–" if value is None else f"{value:.{digits}f}"
            share = value / 100 if value is not None and "R@" in key else None
            count = (num_queries or {}).get(key[:3], FEW_QUERIES)
            interval = "" if share is None or not 0 < count < FEW_QUERIES else _show_wilson(share, count)
            row.append(Cell(text, value is not None and value == best, share, interval))
    return rows


def query_note(num_queries: Mapping[str, int]) -> str:
    """Return what one query more or less does to a recall, where it does much."""
    count = min(num_queries.values(), default=0)
    if not 0 < count < FEW_QUERIES:
        return ""
    return f"{_one_counts(count, 'queries')} Below each recall its {CONFIDENCE:.0%} interval (Wilson's)."


def _one_counts(count: int, what: str) -> str:
    return f"{count} {what}: one is {100 / count:.3g} points."


def _show_wilson(share: float, count: int) -> str:
    low, high = wilson_interval(share, count)
    return f"{100 * low:.0f} to {100 * high:.0f}"


def cost_rows(runs: Sequence[RunReport]) -> list[list[str]]:
    """Return training time, its ratio to the first run's, and throughput, per run."""
    base = runs[0].duration_s if runs else None
    return [
        [
            "–" if run.duration_s is None else format_duration(run.duration_s),
            f"{run.duration_s / base:.2f}×" if base and run.duration_s is not None else "–",
            "–" if run.throughput() is None else f"{run.throughput():.0f}",
        ]
        for run in runs
    ]


def overview_figures(runs: Sequence[RunReport]) -> list[Figure]:
    """Return recall and cost as bars, for a page that compares runs."""
    recall = {run.name: run.metrics["t2v_R@1"] for run in runs if "t2v_R@1" in run.metrics}
    seconds = {run.name: run.duration_s for run in runs if run.duration_s is not None}
    figures = []
    if len(recall) > 1 and len(recall) == len(runs):
        figures.append(Figure("R@1, text to video", Markup(plots.bars_svg(recall, unit=" %"))))
    if len(seconds) > 1 and len(seconds) == len(runs):
        figures.append(Figure("Training time", Markup(plots.bars_svg(seconds, unit=" s", digits=0))))
    return figures


def training_figures(runs: Sequence[RunReport]) -> list[Figure]:
    """Return the curves that at least one run recorded."""
    figures = []
    for metric, title, label, is_noisy in CURVES:
        found = {run.name: run.series(metric) for run in runs}
        if any(steps for steps, _ in found.values()):
            svg = plots.curves_svg(
                found, xlabel="step", ylabel=label, is_noisy=is_noisy, from_zero=metric.startswith("val/")
            )
            drawn = [run for run in runs if found[run.name][0]]
            few = min((run.num_val for run in drawn if run.num_val), default=FEW_QUERIES)
            note = _one_counts(few, "clips of val") if "R@" in metric and few < FEW_QUERIES else ""
            figures.append(Figure(title, Markup(svg), note, _legend(runs, drawn)))
    return figures


def weight_figures(report: Report) -> list[Figure]:
    """Return the learned weight curve and the mean weight by kind of caption, where a run has them.

    Runs keep their colour from figure to figure, so those without a curve are drawn as empty lines.
    """
    figures = []
    curves = {run.name: run.weight_curve() or ((), ()) for run in report.runs}
    drawn = [run for run in report.runs if run.weight_curve()]
    if drawn:
        legend = _legend(report.runs, drawn)
        note = "Each curve is divided by its own peak."
        shows_paper = report.shows_paper_curve and plots.loss_range(curves)[1] >= PAPER_PEAK
        if report.shows_paper_curve and not shows_paper:
            note += f" The paper's curve, whose peak is at {PAPER_PEAK:g} nats, lies outside of these losses."
        if shows_paper:
            legend += (("the paper's curve, digitised from its figure", "var(--muted)", True),)
            note += " The paper's models, data and loss scale are others: compare shapes, not values."
        svg = plots.weight_curve_svg(curves, shows_paper=shows_paper)
        figures.append(Figure("Learned weight against loss", Markup(svg), note, legend))
    figures += input_figures(report.runs)
    kinds = {run.name: run.weights_by_kind() for run in report.runs}
    weighted = [run for run in report.runs if kinds[run.name]]
    if weighted:
        note = "Known here because the corpus is generated; training never sees it."
        svg = Markup(plots.kinds_svg(kinds))
        figures.append(Figure("Mean weight by what the caption really is", svg, note, _legend(report.runs, weighted)))
    return figures + share_figures(report.runs)


def share_figures(runs: Sequence[RunReport]) -> list[Figure]:
    """Return the share of generated captions in the loss, where runs read both texts of a clip."""
    series = {run.name: run.series("captions/generated_share") for run in runs}
    shares = {run.name: run.shares_by_kind() for run in runs}
    figures = []
    if mixed := [run for run in runs if series[run.name][0]]:
        note = "Mean over the clips that have one; 0 reads their own text alone."
        svg = Markup(plots.curves_svg(series, xlabel="step", ylabel="share", from_zero=True))
        figures.append(Figure("Share of the generated caption in a clip's loss", svg, note, _legend(runs, mixed)))
    if told := [run for run in runs if shares[run.name]]:
        note = "The kind is that of the clip's own caption, which training never sees."
        svg = Markup(plots.kinds_svg(shares, ylabel="share of the generated caption", reference=0.5))
        figures.append(Figure("The same by what the clip's own caption is", svg, note, _legend(runs, told)))
    return figures


def input_figures(runs: Sequence[RunReport]) -> list[Figure]:
    """Return the learned weight over each input of a weight net that sees more than the loss."""
    figures = []
    curves = {run.name: run.input_curves() for run in runs}
    weights = {run.name: run.input_weights() for run in runs}
    note = "Mean weight of a batch were the input the same for all clips, the others as they are; 1 is the mean."
    for name in dict.fromkeys(name for found in curves.values() for name in found):
        series = {run: found.get(name, ((), ())) for run, found in curves.items()}
        legend = _legend(runs, [run for run in runs if name in curves[run.name]])
        svg = Markup(plots.curves_svg(series, xlabel=name, ylabel="weight (1 = mean)"))
        figures.append(Figure(f"Learned weight against {name}", svg, note, legend))
    for name in dict.fromkeys(name for found in weights.values() for name in found):
        legend = _legend(runs, [run for run in runs if name in weights[run.name]])
        svg = Markup(plots.kinds_svg({run: found.get(name, {}) for run, found in weights.items()}))
        figures.append(Figure(f"Mean weight by {name}", svg, "The weight net sees this category of a clip.", legend))
    return figures


def topic_figures(runs: Sequence[RunReport]) -> list[Figure]:
    """Return recall by topic frequency, where a run has topics."""
    topics = {run.name: run.topics for run in runs if run.topics}
    if not topics:
        return []
    note = "Dots: recall on the test split. Bars behind: training clips of the topic, most frequent first."
    drawn = [run for run in runs if run.topics]
    svg = Markup(plots.topics_svg({run.name: run.topics for run in runs}))
    return [Figure("Recall by topic frequency", svg, note, _legend(runs, drawn), is_wide=True)]


def _legend(runs: Sequence[RunReport], drawn: Sequence[RunReport]) -> tuple[tuple[str, str, bool], ...]:
    return tuple((run.name, _colour(number), False) for number, run in enumerate(runs) if run in drawn)


def _colour(number: int) -> str:
    return f"var(--series-{number % len(plots.SERIES) + 1})"
