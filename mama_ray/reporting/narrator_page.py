"""The report page of a narrator's run: how it learned, and what it says of clips that it never learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from mama_ray.evaluation.caption_metrics.scores import CaptionScores
from mama_ray.reporting import plots
from mama_ray.reporting.document import PAGE_NAME, Figure, format_duration, render_template
from mama_ray.reporting.strips import picture_data_uri, strip_data_uri
from mama_ray.reporting.writers import read_series
from mama_ray.storage.places import Place


@dataclass(frozen=True)
class NarratedClip:
    """A clip of the val split: what the narrator was shown, one picture or frames, what it wrote, and what a person had
    written."""

    clip_id: str
    pixels: UInt8[np.ndarray, "*frames height width channels"]
    written: str
    human: str


@dataclass(frozen=True)
class NarratorReport:
    """A narrator's run: its records as `read_metrics` returns them, and captions of the checkpoint that was taken."""

    title: str
    records: Sequence[Mapping]
    samples: tuple[NarratedClip, ...] = ()
    prompt: str = ""
    duration_s: float | None = None
    num_val: int = 0
    scores: CaptionScores | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def write_narrator_report(folder: Place, report: NarratorReport) -> str:
    """Write `<folder>/index.html` whole or not at all and return its URI."""
    place = folder / PAGE_NAME
    place.write_whole(render_narrator_report(report))
    return place.uri


def render_narrator_report(report: NarratorReport) -> str:
    """Return the page as HTML text."""
    losses = read_series(report.records, "val/caption_loss")[1]
    facts = {"best val loss": f"{min(losses):.3f} nats per token"} if losses else {}
    if report.duration_s is not None:
        facts["training time"] = format_duration(report.duration_s)
    return render_template(
        "narrator.html.j2",
        title=report.title,
        kind="narrator",
        lead="",
        facts=facts,
        is_single=False,
        report=report,
        figures=_figures(report),
        picture=_picture,
    )


def _picture(pixels: UInt8[np.ndarray, "*frames height width channels"]) -> str:
    return strip_data_uri(pixels) if pixels.ndim == 4 else picture_data_uri(pixels)


def _figures(report: NarratorReport) -> list[Figure]:
    series = {"train": "train/caption_loss", "val": "val/caption_loss"}
    losses = {name: read_series(report.records, metric) for name, metric in series.items()}
    figures = []
    if any(steps for steps, _ in losses.values()):
        svg = plots.curves_svg(losses, xlabel="step", ylabel="loss per caption token (nats)", is_noisy=True)
        figures.append(Figure("Loss of human captions", Markup(svg), legend=_legend(losses)))
    series = {name: read_series(report.records, f"val/{name}") for name in ("BLEU-1", "BLEU-4", "ROUGE-L")}
    if any(steps for steps, _ in series.values()):
        svg = plots.curves_svg(series, xlabel="step", ylabel="%", from_zero=True)
        subset = "" if report.scores is None else f"{report.scores.subset}, against what people wrote. "
        note = f"{subset}CIDEr-D, of another unit, is in the table."
        figures.append(Figure("How near its own captions come", Markup(svg), note, _legend(series)))
    names = dict.fromkeys(name for record in report.records for name in record if name.endswith("_right"))
    facts = {name.removeprefix("val/").removesuffix("_right"): read_series(report.records, name) for name in names}
    if facts:
        svg = plots.curves_svg(facts, xlabel="step", ylabel="clips of val (%)", from_zero=True)
        note = "Known here because the corpus is generated; training never sees it."
        figures.append(Figure("What its own captions get right", Markup(svg), note, _legend(facts)))
    return figures


def _legend(series: Mapping[str, object]) -> tuple[tuple[str, str, bool], ...]:
    return tuple((name, f"var(--series-{n % len(plots.SERIES) + 1})", False) for n, name in enumerate(series))
