"""The report card of a captioning job, as plain data: whoever has numbers fills it in.

Counts are of rows of the caption table (one per clip and caption); whatever was not measured stays at its default and
is left out of the page.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

CARD_VERSION = 1


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
    speed_of_light: float | None = None
    """Clips per second over what the engines alone would reach, in 0 to 1."""
    speed_note: str = ""
    """How `speed_of_light` is defined, and whatever else the speeds need said."""
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
    document = {"version": CARD_VERSION}
    document |= {one.name: _plain(getattr(card, one.name)) for one in fields(card) if one.name != "samples"}
    document["samples"] = [
        {name: _plain(getattr(sample, name)) for name in ("clip_id", "outcome", "caption", "error", "flags")}
        for sample in card.samples
    ]
    return document


def _plain(value: Any) -> Any:
    """Return what strict JSON can hold: numpy's numbers are not in it, and neither are NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
