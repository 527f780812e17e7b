"""Benchmarks whose truth lies in official annotation files, not in the captions of the shards: what is asked for, and
what a result of one must name.

Three families: multi_instance (EK-100 MIR), classification (EK-100, Charades-Ego, EGTEA) and multiple_choice (EgoMCQ).
Clips are tied to annotations by clip_id. All clips of the annotations count: a missing one is wrong.
"""

import json
from typing import Literal, TypeVar

import pydantic
from pydantic import Field, field_validator, model_validator

from mama_ray.config import Config
from mama_ray.data.clip import normal_split
from mama_ray.data.index import hash_ids
from mama_ray.data.video.views import ViewConfig
from mama_ray.errors import UserError, unknown_name
from mama_ray.evaluation.protocol import CheckpointName

RESULT_VERSION = 1
_EK100_CLASSES = ("segments", "train", "verbs", "nouns", "tail_verbs", "tail_nouns", "unseen")
_EK100_METRICS = (
    *(f"{kind}_top{k}" for kind in ("action", "verb", "noun") for k in (1, 5)),
    "verb_top1_tail", "noun_top1_tail", "verb_top1_unseen", "noun_top1_unseen", "action_top1_unseen",
)  # fmt: skip
_EGTEA_METRICS = ("mean_class_accuracy", "mean_class_accuracy_with_predicted", "top1", "top5")
_AT_CHANCE = 1.1  # of the chance level, which is known to a few percent


class AnnotatedBenchmark(Config):
    """What the families ask for alike."""

    dataset: str
    """Name of the data set, as results name it."""
    split: str = "test"
    """Split of the index that is evaluated: of test all clips of the annotations count, of a split held out from train
    those that the index has."""
    files: dict[str, str] = {}
    """Names of annotation files that differ from the official ones, such as segments: EPIC_100_train.csv for clips
    held out from train."""
    views: ViewConfig = ViewConfig()
    """What is seen of a clip."""
    text_length: int | None = Field(default=None, ge=2)
    """Tokens a text is cut to, start and end included; null is the model's own length."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a view; null is the number the model was trained with."""
    image_size: int | None = Field(default=None, ge=8)
    """Side of a frame in pixels; null is the model's own."""
    num_clips: int | None = Field(default=None, ge=1)
    """Clips of the whole benchmark; null is as many as the annotations name."""
    clip_ids_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of its sorted clip ids, joined by newlines, where there is one official list."""
    chance: dict[str, float] = {}
    """What metrics are without any knowledge, in percent: a result that has no more says so."""

    @field_validator("split")
    @classmethod
    def _is_a_split(cls, split: str) -> str:
        return normal_split(split)

    @model_validator(mode="after")
    def _has_frames_in_a_window(self) -> "AnnotatedBenchmark":
        views, wanted = self.views, self.num_frames or 1
        if views.num_windows > 1 and views.window_frames < wanted:
            raise ValueError(f"views.window_frames: got {views.window_frames}, wanted at least num_frames, {wanted}")
        return self

    @model_validator(mode="after")
    def _knows_its_files(self) -> "AnnotatedBenchmark":
        known = self._known_files()
        unknown = [name for name in self.files if name not in known]
        if unknown:
            raise ValueError(f"files: got {', '.join(unknown)}, wanted some of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _knows_its_metrics(self) -> "AnnotatedBenchmark":
        known = self.metric_names()
        for name in self.chance:
            # Of several lists a metric has the list before its name.
            if name not in known and name.rpartition("/")[2] not in self._metrics_of_lists():
                raise unknown_name("metric in chance", name, known)
        return self

    def _known_files(self) -> tuple[str, ...]:
        """Return the keys of `files` that are read."""
        return ()

    def metric_names(self) -> tuple[str, ...]:
        """Return the names of all metrics that a result may have."""
        return ()

    def _metrics_of_lists(self) -> tuple[str, ...]:
        """Return those which each list of clips has, where there are several."""
        return ()

    def clips_deviation(self, clip_ids: tuple[str, ...], num_missing: int) -> str:
        """Return how the clips that were there differ from the whole benchmark's, "" where they are all."""
        wanted, found = self.num_clips or len(clip_ids), len(clip_ids) - num_missing
        if found != wanted:
            return f"{found:,} of {wanted:,}" if found < wanted else f"{found:,} clips for {wanted:,}"
        return "" if self.clip_ids_sha256 in (None, hash_ids(clip_ids)) else "other clips"


class MultiInstanceBenchmark(AnnotatedBenchmark):
    """Retrieval with graded relevance: many captions fit a clip, and many clips a caption."""

    family: Literal["multi_instance"]
    """Which kind of benchmark this is."""
    num_texts: int | None = Field(default=None, ge=1)
    """Captions of the whole benchmark."""

    def _known_files(self) -> tuple[str, ...]:
        return ("segments", "captions", "verbs", "nouns")

    def metric_names(self) -> tuple[str, ...]:
        return tuple(f"{name}{way}" for name in ("mAP", "nDCG", "strict_mAP") for way in ("", "_v2t", "_t2v"))

    @model_validator(mode="after")
    def _has_one_view(self) -> "MultiInstanceBenchmark":
        return _with_one_view(self)


class ClassificationBenchmark(AnnotatedBenchmark):
    """Recognition, zero-shot by texts of the classes or by a trained head."""

    family: Literal["classification"]
    """Which kind of benchmark this is."""
    annotations: Literal["ek100", "charades_ego", "egtea"]
    """Whose official files are read."""
    score: Literal["head_or_cosine", "head", "cosine"] = "head_or_cosine"
    """head: logits of the checkpoint's own heads, which a run with task.kind classification has; cosine: with texts of
    the classes, zero-shot; head_or_cosine: heads where the checkpoint has some."""
    templates: tuple[str, ...] = Field(default=("{}",), min_length=1)
    """What a class's text is put into, such as `#C C {}`: the class has the mean of all of them."""
    temperature: float = Field(default=0.07, gt=0)
    """Of the softmax over a clip's classes, where a metric takes one of cosines."""
    absent_classes: Literal["refuse", "left_out"] = "refuse"
    """Several labels only: a class that no clip has is an error that names it, or is left out of the mean."""
    num_classes: int | None = Field(default=None, ge=1)
    """Classes of the whole benchmark."""

    @property
    def leaves_out_absent(self) -> bool:
        """Whether classes without a clip are left out."""
        return self.absent_classes == "left_out"

    def _known_files(self) -> tuple[str, ...]:
        known = {"ek100": _EK100_CLASSES, "charades_ego": ("videos", "classes"), "egtea": ("actions", "clips")}
        return known[self.annotations]

    def metric_names(self) -> tuple[str, ...]:
        known = {"ek100": _EK100_METRICS, "charades_ego": ("mAP_raw", "mAP_softmax"), "egtea": _EGTEA_METRICS}
        return known[self.annotations]

    def _metrics_of_lists(self) -> tuple[str, ...]:
        return _EGTEA_METRICS if self.annotations == "egtea" else ()

    @model_validator(mode="after")
    def _has_places_for_texts(self) -> "ClassificationBenchmark":
        without = [template for template in self.templates if "{}" not in template]
        if without:
            raise ValueError(f"templates: got {without[0]!r}, wanted {{}} in each, where a class's text is put")
        return self


class MultipleChoiceBenchmark(AnnotatedBenchmark):
    """A text and several clips, one of which it is of."""

    family: Literal["multiple_choice"]
    """Which kind of benchmark this is."""
    score: Literal["cosine", "raw"] = "cosine"
    """cosine: of unit features, as EgoVLP has it; raw: the product of unnormalised projections, LaViLa's."""
    num_questions: int | None = Field(default=None, ge=1)
    """Questions of the whole benchmark."""

    def _known_files(self) -> tuple[str, ...]:
        return ("questions",)

    def metric_names(self) -> tuple[str, ...]:
        return ("accuracy_inter", "accuracy_intra", "legacy_Intra-video", "legacy_Inter-video")

    @model_validator(mode="after")
    def _has_one_view(self) -> "MultipleChoiceBenchmark":
        return _with_one_view(self)


_BenchmarkT = TypeVar("_BenchmarkT", bound=AnnotatedBenchmark)


def _with_one_view(benchmark: _BenchmarkT) -> _BenchmarkT:
    if benchmark.views.num_views > 1:
        raise ValueError(f"views: got {benchmark.views.num_views}, wanted 1: several are for classification")
    return benchmark


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class AnnotatedProtocol(_Record):
    """Everything that must agree before two numbers of such a benchmark may be compared."""

    dataset: str
    split: str
    family: str
    ids_sha256: str
    """SHA-256 of the sorted clip ids, joined by newlines."""
    num_clips: int
    num_texts: int
    """Captions, texts of classes, or questions."""
    num_classes: int | None = None
    lists: str = ""
    """Which official lists of clips, where there are several."""
    num_missing: int = 0
    """Clips that are not there or cannot be decoded: wrong."""
    score: Literal["cosine", "raw", "head", "file"]
    """head: logits of a trained classifier; file: whatever a file of scores holds."""
    templates: tuple[str, ...] = ()
    temperature: float | None = None
    text_length: int | None = None
    num_frames: int | None = None
    sampling: str | None = None
    views: str | None = None
    image_size: int | None = None
    resize: str | None = None
    deviation: str = ""
    """How what was there differs from the whole benchmark; empty for a whole one."""

    @property
    def name(self) -> str:
        """The benchmark's name, as `ek100_mir (900 of 9,668)` where it was not whole."""
        return f"{self.dataset} ({self.deviation})" if self.deviation else self.dataset


class AnnotatedResult(_Record):
    """The numbers of one checkpoint, or of one file of scores, in percent."""

    version: int = Field(default=RESULT_VERSION, ge=1, le=RESULT_VERSION)
    protocol: AnnotatedProtocol
    source: str
    """What was evaluated: a checkpoint and how it was chosen, or a file."""
    checkpoint: CheckpointName | None = None
    metrics: dict[str, float]
    missing: tuple[dict[str, str], ...] = ()
    """clip_id and error of the first clips that are missing."""
    warning: str | None = None
    duration_s: float | None = None

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "AnnotatedResult":
        """Raise UserError when the text is no result of this version."""
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            got = place or "no JSON"
            raise UserError("not a result on annotated clips", got=got, wanted=first["msg"]) from error


def chance_warning(benchmark: AnnotatedBenchmark, metrics: dict[str, float]) -> str | None:
    """Return what is to be said of an evaluation that is no better than chance, None where it is better."""
    for name, chance in benchmark.chance.items():
        if name in metrics and metrics[name] <= _AT_CHANCE * chance:
            return f"{name} {metrics[name]:.2f} % is at chance ({chance:.2f} %): weights did not load, or do not fit"
    return None


def result_table(result: AnnotatedResult) -> str:
    """Return the result as text: the protocol above, then a line for each metric."""
    protocol = result.protocol
    missing = f", {protocol.num_missing} missing and wrong" if protocol.num_missing else ""
    seen = f", {protocol.num_frames} frames of {protocol.image_size} px, views {protocol.views}"
    lines = [
        f"{protocol.name} {protocol.split}{f' ({protocol.lists})' if protocol.lists else ''}: {protocol.num_clips} "
        f"clips{missing}, {protocol.num_texts} texts, score {protocol.score}{seen if protocol.num_frames else ''}, "
        f"ids {protocol.ids_sha256[:12]}"
    ]
    width = max(map(len, result.metrics))
    lines += [f"{name.ljust(width)}  {value:8.2f} %" for name, value in result.metrics.items()]
    return "\n".join([*lines, *([f"WARNING: {result.warning}"] if result.warning else [])])
