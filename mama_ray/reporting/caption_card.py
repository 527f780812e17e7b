"""The report card of a captioning job: plain data that whoever has numbers fills in, a page and a JSON file of it.

Counts are of rows of the caption table (one per clip and caption); whatever was not measured stays at its default and
is left out of the page. Captions and errors are text of others: the page escapes, isolates and shortens them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from mama_ray.reporting import plots
from mama_ray.reporting.document import PAGE_NAME, Figure, format_duration, render_template
from mama_ray.reporting.strips import picture_data_uri
from mama_ray.storage.places import Place

CARD_NAME = "card.json"
CARD_VERSION = 2
MAX_SAMPLES = 24  # of each outcome: their pictures are most of the page's bytes
_MAX_LINES = 15  # of the tables of errors and of common captions


@dataclass(frozen=True)
class CaptionSample:
    """One row of the table that the card shows, with the picture that the captioner saw where it is at hand."""

    clip_id: str
    caption: str | None = None
    error: str | None = None
    flags: tuple[str, ...] = ()
    pixels: UInt8[np.ndarray, "side side 3"] | None = None

    @property
    def outcome(self) -> Literal["good", "flagged", "error"]:
        """Return which of the three counts of the card this row is in."""
        if self.error is not None:
            return "error"
        return "flagged" if self.flags else "good"


@dataclass(frozen=True)
class CaptionCard:
    """What a captioning job did, and what its captions are like."""

    title: str
    num_clips: int
    """Clips that were asked for; rows are num_good + num_flagged + num_errors."""
    num_good: int = 0
    num_flagged: int = 0
    num_errors: int = 0
    lead: str = ""
    """One or two sentences under the title."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """How the captions were made, in short pairs: model, prompt, grid, sampling, shards."""
    flags: Mapping[str, int] = field(default_factory=dict)
    """Rows by flag of the quality gate; a row may have several."""
    errors: Sequence[tuple[str, int]] = ()
    """Rows by reason why they have no caption."""
    lengths: Sequence[int] = ()
    """`lengths[n]`: captions of n words; the last bin holds those of more as well."""
    vocabulary: int | None = None
    """Distinct words of the captions."""
    is_vocabulary_exact: bool = True
    """False where words were counted up to a limit or by an estimate."""
    common: Sequence[tuple[str, int]] = ()
    """The captions that most clips share, with the numbers of their rows."""
    opening: tuple[str, float] | None = None
    """The most common first words and the share of the captions that begin with them."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work by stage, summed over all actors, in the order of the pipeline."""
    duration_s: float | None = None
    clips_per_s: float | None = None
    tokens_per_s: float | None = None
    """Tokens that the engines wrote, per second."""
    busy_share: float | None = None
    """Share of the engines' time in which they had something to write, in 0 to 1."""
    limit: str = ""
    """A sentence on which part of the work holds the job up, where that can be told."""
    speed_note: str = ""
    """What else the speeds need said."""
    pool: Sequence[tuple[float, int]] = ()
    """(seconds since the start, engines alive from then on), ascending; the last entry's time is the end."""
    samples: Sequence[CaptionSample] = ()

    @property
    def num_rows(self) -> int:
        """Return the rows of the table."""
        return self.num_good + self.num_flagged + self.num_errors

    @property
    def num_captions(self) -> int:
        """Return the rows that have a caption."""
        return self.num_good + self.num_flagged


def card_to_json(card: CaptionCard) -> dict[str, Any]:
    """Return the card as an object of strict JSON, without pixels; NaN and infinity become null."""
    document: dict[str, Any] = {"version": CARD_VERSION}
    document |= {one.name: _plain(getattr(card, one.name)) for one in fields(card) if one.name != "samples"}
    document["samples"] = [
        {name: _plain(getattr(sample, name)) for name in ("clip_id", "outcome", "caption", "error", "flags")}
        for sample in card.samples
    ]
    return document


def render_caption_card(card: CaptionCard) -> str:
    """Return the card as a page of HTML."""
    samples = {
        outcome: [sample for sample in card.samples if sample.outcome == outcome][:MAX_SAMPLES]
        for outcome in ("error", "flagged", "good")
    }
    return render_template(
        "caption_card.html.j2",
        title=card.title,
        kind="captions",
        lead=card.lead,
        facts=headline(card),
        is_single=True,
        card=card,
        outcomes=[("good", card.num_good), ("flagged", card.num_flagged), ("error", card.num_errors)],
        outcome_figures=_outcome_figures(card),
        caption_figures=_caption_figures(card),
        speed_figures=_speed_figures(card),
        errors=card.errors[:_MAX_LINES],
        num_other_errors=sum(count for _, count in card.errors[_MAX_LINES:]),
        common=[(text, count) for text, count in card.common[:_MAX_LINES] if count > 1],
        samples=samples,
        picture=picture_data_uri,
        percent=_percent,
    )


def write_caption_card(folder: Place, card: CaptionCard) -> str:
    """Write `<folder>/card.json` and `<folder>/index.html`, each whole or not at all; returns the page's URI."""
    page = render_caption_card(card)  # before anything is written
    (folder / CARD_NAME).write_whole(json.dumps(card_to_json(card), indent=1, allow_nan=False))
    (folder / PAGE_NAME).write_whole(page)
    return (folder / PAGE_NAME).uri


def headline(card: CaptionCard) -> dict[str, str]:
    """Return the few numbers that stand under the title."""
    facts = {"clips": f"{card.num_clips:,}", "captions": f"{card.num_captions:,}"}
    if card.num_rows:
        facts["good"] = _percent(card.num_good, card.num_rows)
    if any(card.lengths):
        facts["median length"] = f"{median_length(card.lengths)} words"
    if card.vocabulary is not None:
        facts["distinct words"] = f"{'' if card.is_vocabulary_exact else 'about '}{card.vocabulary:,}"
    for name, speed in (("clips/s", card.clips_per_s), ("tokens/s", card.tokens_per_s)):
        if speed is not None and math.isfinite(speed):
            facts[name] = f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
    if card.duration_s is not None:
        facts["time"] = format_duration(card.duration_s)
    return facts


def median_length(lengths: Sequence[int]) -> int:
    """Return the lower median of the numbers of words, from their histogram."""
    half = (sum(lengths) + 1) // 2
    return next(length for length, below in enumerate(accumulate(lengths)) if below >= half)


def _outcome_figures(card: CaptionCard) -> list[Figure]:
    found = dict(sorted(((name, count) for name, count in card.flags.items() if count), key=lambda item: -item[1]))
    if not found:
        return []
    names = {name.replace("_", " "): count for name, count in found.items()}
    labels = [f"{count:,} · {_percent(count, card.num_captions)}" for count in names.values()]
    svg = plots.bars_svg(names, labels=labels, colour=plots.SERIES[5])
    return [Figure("Flags of the quality gate", Markup(svg), "A caption may have several. None was dropped.")]


def _caption_figures(card: CaptionCard) -> list[Figure]:
    if not any(card.lengths):
        return []
    used = max(length for length, count in enumerate(card.lengths) if count) + 1
    has_tail = used == len(card.lengths)
    svg = plots.histogram_svg(card.lengths[:used], xlabel="words", ylabel="captions", has_tail=has_tail)
    return [Figure("Length of the captions", Markup(svg))]


def _speed_figures(card: CaptionCard) -> list[Figure]:
    figures = []
    work = sum(card.stages.values())
    if work > 0:
        labels = [f"{_seconds(seconds)} · {_percent(seconds, work)}" for seconds in card.stages.values()]
        svg = Markup(plots.bars_svg(card.stages, labels=labels, colour=plots.SERIES[0]))
        figures.append(Figure("Where the work went", svg, "Time summed over all processes."))
    if len(card.pool) > 1:
        scale, unit = next((s, u) for s, u in ((3600, "hours"), (60, "minutes"), (1, "seconds")) if _end(card) >= 3 * s)
        points = [(time / scale, count) for time, count in card.pool]
        svg = Markup(plots.steps_svg(points, xlabel=f"{unit} since the start", ylabel="engines"))
        figures.append(Figure("Engines alive", svg))
    return figures


def _end(card: CaptionCard) -> float:
    return max(card.pool[-1][0], 3.0)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)


def _percent(part: float, whole: float) -> str:
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.05:  # a few rows of many are not none, and all but a few are not all
        return "< 0.1 %"
    return "> 99.9 %" if 99.95 <= share < 100 else f"{share:.1f} %"


def _plain(value: Any) -> Any:
    """Return what strict JSON can hold: numpy's numbers are not in it, and neither are NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
