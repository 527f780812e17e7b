"""From the captions of a video's windows to what happens when: equal neighbours are one, samples are told once.

Nothing is lost on the way: an entry names its windows, holds every distinct sample as the model wrote it, and a window
without a caption is an entry with the reason.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from mama_ray.captioning.quality import Flag, caption_key
from mama_ray.captioning.subject_style import SubjectStyle, restyle
from mama_ray.config import Config

_TOUCH_S = 1e-6


class TimelineConfig(Config):
    """How captions of windows become a time line. None of it changes the caption table."""

    subject: SubjectStyle = "keep"
    """Who does it, in captions with Ego4D's marks: keep leaves "#C C" and "#O a man X" as they are; c_only writes "C"
    for the wearer of the camera and drops the letters of others, which change from window to window; person writes
    "the camera wearer"."""

    merge: bool = True
    """Neighbouring windows of which the same is said become one entry."""

    max_texts: int = Field(default=1, ge=1, le=64)
    """Most distinct samples of a window that an entry shows, those of the highest log-probability first."""

    hidden_flags: list[Flag] = ["empty", "refusal"]
    """Flags of the quality gate whose captions are not shown; they stay in narration.jsonl and in the table."""


@dataclass(frozen=True)
class Text:
    """A distinct caption of an entry.

    Attributes:
        text: as it is shown, in the style that was asked for.
        raw: as it stands in the caption table.
        mean_logprob: of the likeliest sample that says so.
        num_samples: how many do.
        flags: of the quality gate.
    """

    text: str
    raw: str
    mean_logprob: float | None
    num_samples: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """What is said of [start_s, end_s) of a video.

    Attributes:
        texts: the shown ones, the likeliest first; empty where there is none.
        others: distinct captions that are not shown.
        clip_ids: the windows, in order.
        error: why there is no caption of them.
    """

    start_s: float
    end_s: float
    texts: tuple[Text, ...]
    others: tuple[Text, ...]
    clip_ids: tuple[str, ...]
    error: str | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)

    def to_json(self, video: str) -> dict[str, Any]:
        """Return a line of narration.jsonl: `text` is what is shown first, None where there is nothing."""
        return {
            "video": video,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "text": self.texts[0].text if self.texts else None,
            "raw": self.texts[0].raw if self.texts else None,
            "texts": [vars(text) for text in self.texts],
            "not_shown": [vars(text) for text in self.others],
            "clip_ids": self.clip_ids,
            "error": self.error,
        }


def build_timeline(rows: Iterable[dict[str, Any]], config: TimelineConfig) -> list[Entry]:
    """Return the entries of one video in the order of their starts.

    rows: of the caption table with the times of their windows: clip_id, start_s, end_s, sample, caption, mean_logprob,
    flags, error; the samples of a window together.
    """
    windows: dict[str, list[dict]] = {}
    for row in rows:
        windows.setdefault(row["clip_id"], []).append(row)
    entries = [_entry(samples, config) for samples in windows.values()]
    entries.sort(key=lambda entry: (entry.start_s, entry.end_s))
    return _merged(entries) if config.merge else entries


def _entry(samples: Sequence[dict], config: TimelineConfig) -> Entry:
    first = samples[0]
    shown: dict[str, Text] = {}
    hidden: dict[str, Text] = {}
    for row in sorted(samples, key=_by_likelihood):
        if row["caption"] is None:
            continue
        flags = tuple(row["flags"] or ())
        into = hidden if set(flags) & set(config.hidden_flags) else shown
        text = restyle(row["caption"], config.subject).text
        key = caption_key(text) or text
        same = into.get(key)
        if same is None:
            into[key] = Text(text, row["caption"], _known_logprob(row), 1, flags)
        else:
            into[key] = Text(same.text, same.raw, same.mean_logprob, same.num_samples + 1, same.flags)
    texts = tuple(shown.values())
    num_shown = config.max_texts
    keys = tuple(list(shown)[:num_shown])
    others = (*texts[num_shown:], *hidden.values())
    errors = [row["error"] for row in samples if row["error"]]
    error = errors[0] if errors and not texts and not others else None
    return Entry(first["start_s"], first["end_s"], texts[:num_shown], others, (first["clip_id"],), error, keys)


def _known_logprob(row: dict) -> float | None:
    """Return None where an engine told none: as NaN it would be no JSON, and in no order."""
    value = row["mean_logprob"]
    return value if value is not None and math.isfinite(value) else None


def _by_likelihood(row: dict) -> tuple[float, int]:
    value = _known_logprob(row)
    return math.inf if value is None else -value, row["sample"]


def _merged(entries: Sequence[Entry]) -> list[Entry]:
    merged: list[Entry] = []
    for entry in entries:
        before = merged[-1] if merged else None
        if before is None or not _says_the_same(before, entry):
            merged.append(entry)
            continue
        texts = tuple(_together(one, other) for one, other in zip(before.texts, entry.texts, strict=True))
        end_s, clip_ids = max(before.end_s, entry.end_s), (*before.clip_ids, *entry.clip_ids)
        others = tuple(dict.fromkeys((*before.others, *entry.others)))
        merged[-1] = Entry(before.start_s, end_s, texts, others, clip_ids, before.error, before.keys)
    return merged


def _says_the_same(before: Entry, entry: Entry) -> bool:
    is_next = entry.start_s <= before.end_s + _TOUCH_S
    return is_next and before.keys == entry.keys and before.error == entry.error


def _together(one: Text, other: Text) -> Text:
    scores = [text.mean_logprob for text in (one, other) if text.mean_logprob is not None]
    flags = tuple(dict.fromkeys((*one.flags, *other.flags)))
    return Text(one.text, one.raw, max(scores, default=None), one.num_samples + other.num_samples, flags)
