"""What a report shows, as plain data: whoever has numbers fills these in, the page only draws them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mama_ray.reporting.metrics import METRICS
from mama_ray.reporting.writers import read_series

# Weight against loss, read off a figure of the MAMA paper. That ours has this shape is a hope, not a test.
PAPER_WEIGHT_CURVE: tuple[tuple[float, float], ...] = (
    (0, 0.0615), (1, 0.0642), (2, 0.0667), (3, 0.0682), (4, 0.0709), (4.7, 0.0730), (5, 0.0724), (6, 0.0700),
    (7, 0.0671), (8, 0.0654), (9, 0.0639), (10, 0.0619), (11, 0.0586), (12, 0.0555), (13, 0.0518), (14, 0.0487),
    (15, 0.0459), (15.85, 0.0445),
)  # fmt: skip
KIND_PREFIX, KIND_SUFFIX = "weights/", "/mean"
SHARE_AFFIXES = "captions/", "/share"
_CURVE, _CATEGORY = re.compile(r"inputs/([^/]+)/curve_value"), re.compile(r"inputs/([^/]+)/weight/([^/]+)")


@dataclass(frozen=True)
class TopicRecall:
    """Recall of one topic's queries, in percent, with the number of its training clips."""

    topic: str
    num_train: int
    recall: float


@dataclass(frozen=True)
class RetrievedClip:
    """A clip in a ranking; frames is (frames, height, width, 3)."""

    frames: UInt8[np.ndarray, "frames height width channels"]
    caption: str
    is_right: bool


@dataclass(frozen=True)
class Retrieval:
    """A text query with the clips ranked first; `rank` is that of the right clip."""

    query: str
    rank: float
    clips: tuple[RetrievedClip, ...]


@dataclass(frozen=True)
class Accuracy:
    """How many of some questions were answered rightly; counts are None where they are not known."""

    name: str
    percent: float
    num_right: int | None = None
    num_questions: int | None = None
    interval: str = ""


class Choice(NamedTuple):
    """An answer beside a question: the right one, the one that was given, or an option that is neither."""

    text: str
    is_right: bool
    is_given: bool


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question with its clip and what was answered; `frames` is None where the clip cannot be read."""

    frames: UInt8[np.ndarray, "frames height width channels"] | None
    clip_id: str
    question: str
    choices: tuple[Choice, ...]
    type: str = ""

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer."""
        return any(choice.is_given for choice in self.choices)


@dataclass(frozen=True)
class Answering:
    """What a model answered: the score of all questions first, then those of types and groups."""

    rows: tuple[Accuracy, ...]
    benchmark: str = ""
    note: str = ""
    protocol: str = ""
    warning: str = ""
    examples: tuple[AnsweredQuestion, ...] = ()


@dataclass(frozen=True)
class RunReport:
    """One run: its records as `read_metrics` returns them, and what its evaluation found.

    `metrics` has keys as t2v_R@1; `facts` are short pairs such as {"margin": "0.2"}; `duration_s` is training time.
    """

    name: str
    records: Sequence[Mapping] = ()
    benchmark: str = ""
    """What the metrics are of, as results name it: `msrvtt_1ka (900 of 1,000)` is another one than `msrvtt_1ka`."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    duration_s: float | None = None
    topics: tuple[TopicRecall, ...] = ()
    head_recall: float | None = None
    tail_recall: float | None = None
    retrievals: tuple[Retrieval, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    num_val: int | None = None
    """Clips of the validation split."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where the numbers come from: command, checkpoint, dates, versions."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """All settings by dotted key."""
    answering: Answering | None = None
    """What it answered, where it learned to."""

    def series(self, metric: str) -> tuple[list[int], list]:
        """Return (steps, values) of a metric."""
        return read_series(self.records, metric)

    def weight_curve(self) -> tuple[list[float], list[float]] | None:
        """Return the last (losses, weights) that the run recorded, None if it learned no weights."""
        losses, weights = self.series("weights/curve_loss")[1], self.series("weights/curve_weight")[1]
        if not losses or not weights:
            return None
        # The writer's null is a number that was none.
        points = [point for point in zip(losses[-1], weights[-1], strict=True) if None not in point]
        return ([loss for loss, _ in points], [weight for _, weight in points]) if points else None

    def input_curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """Return the last (values, weights) of each input of the weight net that is a number and not its loss."""
        found = {}
        for name in dict.fromkeys(name for record in self.records for name in record):
            if (match := _CURVE.fullmatch(name)) is not None:
                values = [self.series(f"inputs/{match[1]}/{end}")[1] for end in ("curve_value", "curve_weight")]
                points = zip(*(lists[-1] for lists in values), strict=True) if all(values) else ()
                known = [point for point in points if None not in point]
                if known:
                    found[match[1]] = ([value for value, _ in known], [weight for _, weight in known])
        return found

    def input_weights(self) -> dict[str, dict[str, float]]:
        """Return the mean weight of each value of each category that the weight net sees, as `weights_by_kind` does."""
        values: dict[str, dict[str, list[float]]] = {}
        for record in self.records:
            for name, value in record.items():
                if value is not None and (match := _CATEGORY.fullmatch(name)) is not None:
                    values.setdefault(match[1], {}).setdefault(match[2], []).append(value)
        return {
            category: {name: float(np.mean(own[-max(1, len(own) // 5) :])) for name, own in sorted(found.items())}
            for category, found in values.items()
        }

    def weights_by_kind(self) -> dict[str, float]:
        """Return the mean weight of each kind of caption over the last fifth of the records that have one.

        A clip's kind is that of its human caption, whichever of its captions a step has drawn.
        """
        return self._by_kind(KIND_PREFIX, KIND_SUFFIX)

    def shares_by_kind(self) -> dict[str, float]:
        """Return the mean share of generated captions in the losses of clips by the kind of their own, likewise."""
        return self._by_kind(*SHARE_AFFIXES)

    def _by_kind(self, prefix: str, suffix: str) -> dict[str, float]:
        values: dict[str, list[float]] = {}
        for record in self.records:
            for name, value in record.items():
                kind = name.removeprefix(prefix).removesuffix(suffix)
                if name == f"{prefix}{kind}{suffix}" and value is not None:
                    values.setdefault(kind, []).append(value)
        return {kind: float(np.mean(found[-max(1, len(found) // 5) :])) for kind, found in sorted(values.items())}

    def throughput(self) -> float | None:
        """Return the median of clips trained on per second."""
        values = self.series("throughput/clips_per_s")[1]
        return float(np.median(values)) if values else None


@dataclass(frozen=True)
class Report:
    """A page: one run, or several beside each other, the first being the one that the others are compared with."""

    title: str
    runs: tuple[RunReport, ...]
    lead: str = ""
    """One or two sentences: what was asked, on what data."""
    protocol: str = ""
    """One line that names the protocol of the recall, as `describe_protocol` gives it."""
    num_gallery: int | None = None
    """Items a query chooses from; gives the chance level."""
    num_queries: Mapping[str, int] = field(default_factory=dict)
    """Queries by way, t2v and v2t; a recall over few of them has an interval."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Pairs shown under the title, such as {"training clips": "4,000"}."""
    shows_paper_curve: bool = True

    def unit(self, metric: str) -> str:
        return METRICS[metric].unit
