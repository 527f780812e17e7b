"""What a result must name, and the refusal to put results of different protocols into one table.

A benchmark file of retrieval (configs/benchmark/NAME.yaml) is a `BenchmarkConfig`: what is asked. A `Protocol` is what
was done, down to the hash of the ids; a `Result` adds the checkpoint and the numbers. Plain and dual softmax are two
results. What was done on less (or more) than the whole benchmark has another name: `Protocol.name`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import pydantic
from pydantic import Field, field_validator

from mama_ray.config import Config
from mama_ray.data.clip import normal_split
from mama_ray.errors import UserError
from mama_ray.evaluation.retrieval import GroupRule, TieRule

CaptionMode = Literal["single", "paragraph", "multi"]
MissingRule = Literal["counted_wrong", "excluded"]
DualSoftmax = Literal["off", "on", "both"]

RESULT_VERSION = 1
TABLE_KEYS = ("R@1", "R@5", "R@10", "median_rank", "mean_rank")


class BenchmarkConfig(Config):
    """The protocol that a benchmark of retrieval asks for."""

    family: Literal["retrieval"] = "retrieval"
    """Which kind of benchmark this is."""
    dataset: str
    """Name of the data set, as results name it."""
    split: str = "test"
    """Split of the index that is evaluated."""
    caption_mode: CaptionMode = "single"
    """single: one caption per clip; paragraph: all sentences joined in file order; multi: every caption is a query."""
    video_to_text: GroupRule = "best_rank"
    """multi only. best_rank: the gallery is all captions; group_max: a clip's captions compete as one."""
    text_length: int | None = Field(default=None, ge=2)
    """Tokens a caption is cut to, start and end included; None is the model's own length."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames per clip, at the centres of equal segments; None is the number the model was trained with."""
    image_size: int | None = Field(default=None, ge=8)
    """Side of a frame in pixels; None is the model's own."""
    trim_s: float | None = Field(default=None, gt=0)
    """The annotations kept only so many seconds of each video (DiDeMo: 30); recorded, done when shards are made."""
    ties: TieRule = "average"
    """Rank of a positive that ties with negatives: the mean, best or worst place among them."""
    dual_softmax: DualSoftmax = "both"
    """Plain ranking, ranking after a dual softmax over all test queries, or both as separate results."""
    missing: MissingRule = "counted_wrong"
    """Clips that cannot be decoded, were refused by prepare or are not there at all: their queries rank last, or are
    left out together with their captions."""
    num_clips: int | None = Field(default=None, ge=1)
    """Clips of the whole benchmark; None is as many as the split has, those included that prepare refused."""
    num_captions: int | None = Field(default=None, ge=1)
    """Captions of all its clips together, a paragraph's sentences counted one by one; None is any number."""
    video_ids_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of its sorted video ids, joined by newlines, where there is one official list."""

    @field_validator("split")
    @classmethod
    def _is_a_split(cls, split: str) -> str:
        return normal_split(split)


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Protocol(_Record):
    """Everything that must agree before two numbers may be compared (docs/evaluation.md, "What a result names")."""

    dataset: str
    split: str
    ids_sha256: str
    """SHA-256 of the sorted clip ids, joined by newlines."""
    num_videos: int
    num_texts: int
    caption_mode: CaptionMode
    video_to_text: GroupRule
    text_length: int
    num_frames: int
    sampling: str
    num_views: int = 1
    image_size: int
    resize: str
    trim_s: float | None = None
    score: Literal["cosine", "raw"] = "cosine"
    ties: TieRule
    dual_softmax: bool
    dual_softmax_negatives: Literal["as_is"] | None = None
    """as_is: the product keeps a negative similarity's sign, so it is not monotone there; None without dual softmax."""
    missing_rule: MissingRule
    num_missing: int
    deviation: str = ""
    """How what was there differs from the whole benchmark, such as `900 of 1,000`; empty for a whole one."""

    @property
    def name(self) -> str:
        """The benchmark's name, as `msrvtt_1ka (900 of 1,000)` where it was not whole."""
        return f"{self.dataset} ({self.deviation})" if self.deviation else self.dataset


class CheckpointName(_Record):
    """Which weights were evaluated and how they were chosen."""

    path: str
    sha256: str
    """Of model.safetensors."""
    step: int | None = None
    selection: str
    """Such as 'best val/t2v_R@1', 'given by its path'."""


class TopicResult(_Record):
    """Recall over the queries of one topic, or of the head or the tail of topics."""

    topic: str
    num_train: int
    """Training clips of the topic in the index, the measure of its frequency."""
    num_videos: int
    metrics: dict[str, float]


class RetrievedExample(_Record):
    """One text query with the clips that were ranked first."""

    text: str
    clip_id: str
    """The right one."""
    rank: float
    retrieved: tuple[str, ...]
    """Clip ids, best first."""


class Result(_Record):
    """The numbers of one checkpoint under one protocol."""

    label: str
    """Name of the entry inside its file: plain or dual_softmax."""
    protocol: Protocol
    checkpoint: CheckpointName
    metrics: dict[str, float]
    topics: tuple[TopicResult, ...] = ()
    """Most frequent first."""
    head: TopicResult | None = None
    tail: TopicResult | None = None
    examples: tuple[RetrievedExample, ...] = ()


class ResultFile(_Record):
    """The content of evaluation/<benchmark>.json."""

    version: int = Field(default=RESULT_VERSION, ge=1, le=RESULT_VERSION)
    benchmark: str
    """Name of the benchmark, with what was of it where it was not whole (`Protocol.name`)."""
    results: tuple[Result, ...]
    missing: tuple[dict[str, str], ...] = ()
    """clip_id and error of the first clips that are missing."""
    duration_s: float

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ResultFile":
        """Raise UserError when the text is no result of this version."""
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError("not an evaluation result", got=place or "no JSON", wanted=first["msg"]) from error


def differing_fields(protocols: Sequence[Protocol]) -> dict[str, list]:
    """Return the fields in which the protocols differ, with the values in order of appearance."""
    found = {}
    for name in Protocol.model_fields:
        values = [getattr(protocol, name) for protocol in protocols]
        if any(value != values[0] for value in values):
            found[name] = values
    return found


def check_comparable(results: Mapping[str, Result]) -> None:
    """Raise UserError naming the fields in which the protocols of the results differ."""
    differences = differing_fields([result.protocol for result in results.values()])
    if differences:
        named = "; ".join(f"{name} is {' / '.join(map(str, values))}" for name, values in differences.items())
        raise UserError(
            f"results of different protocols cannot share a table ({', '.join(results)})",
            got=named,
            wanted="one protocol",
            remedy="evaluate them alike, or make one table for each protocol",
        )


def comparison_table(results: Mapping[str, Result]) -> str:
    """Return a text table, a row per named result, both directions; different protocols are a UserError."""
    if not results:
        raise UserError("a table needs results", got=0, wanted="at least one")
    check_comparable(results)
    names = [f"{way}_{key}" for way in ("t2v", "v2t") for key in TABLE_KEYS]
    heads = [name.replace("median_rank", "median").replace("mean_rank", "mean") for name in names]
    rows = [
        [label, *(f"{result.metrics[name]:.1f}" if name in result.metrics else "-" for name in names)]
        for label, result in results.items()
    ]
    widths = [max(len(row[column]) for row in [["", *heads], *rows]) for column in range(len(heads) + 1)]
    protocol = next(iter(results.values())).protocol
    lines = [describe_protocol(protocol)]
    lines += [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in [["", *heads], *rows]
    ]
    return "\n".join(lines)


def describe_protocol(protocol: Protocol) -> str:
    """Return the protocol as one line that a table carries above it."""
    texts = protocol.caption_mode if protocol.caption_mode != "multi" else f"multi ({protocol.video_to_text})"
    missing = f", {protocol.num_missing} missing {protocol.missing_rule}" if protocol.num_missing else ""
    return (
        f"{protocol.name} {protocol.split}: {protocol.num_texts} texts x {protocol.num_videos} videos{missing}, "
        f"captions {texts}, {'dual softmax' if protocol.dual_softmax else 'no dual softmax'}, ties {protocol.ties}, "
        f"{protocol.num_frames} frames of {protocol.image_size} px, ids {protocol.ids_sha256[:12]}"
    )


def describe_checkpoint(checkpoint: CheckpointName) -> str:
    """Return which weights were evaluated, and how they were chosen, as one line."""
    step = "" if checkpoint.step is None else f", step {checkpoint.step}"
    return f"{checkpoint.path} ({checkpoint.selection}{step}, sha256 {checkpoint.sha256[:12]})"
