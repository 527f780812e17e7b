"""What is right on an annotated benchmark, read from a folder of official files: by clip, with the texts to embed.

`among` restricts a split that is held out from train to its own clips; None takes all clips of the files. `left_out` of
targets are those of `among` that the files have not.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from mama_ray.data.benchmarks import charades_ego, egomcq, egtea, ek100
from mama_ray.data.benchmarks.rows import Split
from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import (
    AnnotatedBenchmark,
    ClassificationBenchmark,
    MultiInstanceBenchmark,
    MultipleChoiceBenchmark,
)
from mama_ray.evaluation.multi_instance import ActionClasses

logger = logging.getLogger(__name__)

_MAX_NAMED = 10
_NAMES = {
    "segments": "EPIC_100_retrieval_test.csv", "captions": "EPIC_100_retrieval_test_sentence.csv",
    "train": "EPIC_100_train.csv", "verbs": "EPIC_100_verb_classes.csv", "nouns": "EPIC_100_noun_classes.csv",
    "tail_verbs": "EPIC_100_tail_verbs.csv", "tail_nouns": "EPIC_100_tail_nouns.csv",
    "unseen": "EPIC_100_unseen_participant_ids_validation.csv", "videos": "CharadesEgo_v1_test_only1st.csv",
    "classes": "Charades_v1_classes.txt", "actions": "action_idx.txt", "clips": "train_split1.txt",
    "questions": "egomcq.json",
}  # fmt: skip


@dataclass(frozen=True)
class MultiInstanceTargets:
    """Clips and captions with their classes; `texts` are the captions."""

    clip_ids: tuple[str, ...]
    texts: tuple[str, ...]
    videos: ActionClasses
    captions: ActionClasses
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChoiceTargets:
    """Questions, whose texts are `texts`, and which of the clips each offers."""

    clip_ids: tuple[str, ...]
    texts: tuple[str, ...]
    choices: Int64[np.ndarray, "questions choices"]
    answers: Int64[np.ndarray, " questions"]
    types: Int64[np.ndarray, " questions"]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class ActionParts:
    """Verbs and nouns of actions and of clips (EK-100).

    Attributes:
        verb_of, noun_of: of each action class.
        verbs, nouns: of each clip.
        tail_verbs, tail_nouns, unseen: which clips are of a rare verb, of a rare noun, of a person that train has not.
    """

    verb_of: Int64[np.ndarray, " actions"]
    noun_of: Int64[np.ndarray, " actions"]
    verbs: Int64[np.ndarray, " clips"]
    nouns: Int64[np.ndarray, " clips"]
    num_verbs: int
    num_nouns: int
    tail_verbs: Bool[np.ndarray, " clips"]
    tail_nouns: Bool[np.ndarray, " clips"]
    unseen: Bool[np.ndarray, " clips"]


@dataclass(frozen=True)
class ClassTargets:
    """Clips and their classes, with the texts of the classes.

    Attributes:
        texts: of all classes, templates filled in; text_classes is the class of each, every class has one.
        labels: which classes a clip has: exactly one, or any number where is_multi_label.
        lists: which clips are of each official list, where there are several.
        parts: of EK-100.
    """

    clip_ids: tuple[str, ...]
    texts: tuple[str, ...]
    text_classes: Int64[np.ndarray, " texts"]
    class_names: tuple[str, ...]
    labels: Bool[np.ndarray, "clips classes"]
    is_multi_label: bool = False
    lists: Mapping[str, Bool[np.ndarray, " clips"]] | None = None
    parts: ActionParts | None = None
    left_out: tuple[str, ...] = ()

    @property
    def classes(self) -> Int64[np.ndarray, " clips"]:
        """The one class of each clip."""
        return self.labels.argmax(axis=1)


Targets = MultiInstanceTargets | ClassTargets | ChoiceTargets


def read_targets(benchmark: AnnotatedBenchmark, folder: Path, among: Collection[str] | None = None) -> Targets:
    """Read a benchmark's official files; UserError for a missing one, and as their readers raise.

    Clips of `among` that the files have not cannot be right or wrong: they are named in `left_out`, and in the log.
    """
    targets = _read(_Files(folder, benchmark), benchmark, among)
    left_out = tuple(sorted(set(among or ()) - set(targets.clip_ids)))
    if left_out:
        logger.warning(
            "%d of %d clips of split %s are not in the annotations and do not count: %s",
            len(left_out), len(set(among or ())), benchmark.split, ", ".join(left_out[:_MAX_NAMED]),
        )  # fmt: skip
    return replace(targets, left_out=left_out)


def _read(files: "_Files", benchmark: AnnotatedBenchmark, among: Collection[str] | None) -> Targets:
    if isinstance(benchmark, MultiInstanceBenchmark):
        return _multi_instance(files, among)
    if isinstance(benchmark, MultipleChoiceBenchmark):
        return _choices(files)
    assert isinstance(benchmark, ClassificationBenchmark)
    readers = {"ek100": _ek100, "charades_ego": _charades_ego, "egtea": _egtea}
    return readers[benchmark.annotations](files, benchmark.templates, among)


@dataclass(frozen=True)
class _Files:
    folder: Path
    benchmark: AnnotatedBenchmark

    @property
    def split(self) -> Split:
        return "test" if self.benchmark.split == "test" else "val"

    def find(self, kind: str) -> Path | None:
        path = self.folder / self.benchmark.files.get(kind, _NAMES[kind])
        return path if path.is_file() else None

    def __getitem__(self, kind: str) -> Path:
        path = self.find(kind)
        if path is None:
            raise UserError(
                f"an annotation file of {self.benchmark.dataset} is missing",
                got=self.folder, wanted=self.benchmark.files.get(kind, _NAMES[kind]),
                remedy="give the folder of the official files: --annotations",
            )  # fmt: skip
        return path


def _segments(files: _Files, among: Collection[str] | None) -> list[ek100.Segment]:
    segments = ek100.read_segments(files["segments"], files.split)
    return segments if among is None else [one for one in segments if one.narration_id in among]


def _multi_instance(files: _Files, among: Collection[str] | None) -> MultiInstanceTargets:
    segments = _segments(files, among)
    verbs, nouns = ek100.read_classes(files["verbs"]), ek100.read_classes(files["nouns"])
    ek100.require_listed(segments, verbs, nouns)
    if among is None and (files.split == "test" or "captions" in files.benchmark.files):
        captions = ek100.read_caption_list(files["captions"], segments)
    else:
        captions = ek100.unique_captions(segments)
    own = [one.nouns for one in segments]
    videos = ActionClasses.of([one.verb for one in segments], own, num_nouns=max(nouns) + 1)
    return MultiInstanceTargets(_ids(segments), captions.texts, videos, videos.take(list(captions.segments)))


def _ek100(files: _Files, templates: Sequence[str], among: Collection[str] | None) -> ClassTargets:
    segments = _segments(files, among)
    verbs, nouns = ek100.read_classes(files["verbs"]), ek100.read_classes(files["nouns"])
    train = files.find("train")
    others = ek100.read_segments(train, "train") if train else []
    ek100.require_listed([*segments, *others], verbs, nouns)
    narrations: dict[str, dict[str, None]] = {}
    for one in [*others, *segments]:
        narrations.setdefault(one.action, {})[one.narration] = None
    names = tuple(sorted(narrations))  # as texts, "10:1" before "2:0"
    number = {name: place for place, name in enumerate(names)}
    pairs = np.array([[int(part) for part in name.split(":")] for name in names], np.int64).reshape(-1, 2)
    tails = [ek100.read_tail(files[f"tail_{column}s"], column) for column in ("verb", "noun")]
    unseen = ek100.read_unseen(files["unseen"])
    parts = ActionParts(
        verb_of=pairs[:, 0], noun_of=pairs[:, 1],
        verbs=np.array([one.verb for one in segments], np.int64),
        nouns=np.array([one.noun for one in segments], np.int64),
        num_verbs=max(verbs) + 1, num_nouns=max(nouns) + 1,
        tail_verbs=np.array([one.verb in tails[0] for one in segments], bool),
        tail_nouns=np.array([one.noun in tails[1] for one in segments], bool),
        unseen=np.array([one.participant_id in unseen for one in segments], bool),
    )  # fmt: skip
    texts = _filled([tuple(narrations[name]) for name in names], templates)
    labels = _one_hot([number[one.action] for one in segments], len(names))
    return ClassTargets(_ids(segments), *texts, names, labels, parts=parts)


def _charades_ego(files: _Files, templates: Sequence[str], among: Collection[str] | None) -> ClassTargets:
    names = charades_ego.read_class_texts(files["classes"])
    videos = charades_ego.read_videos(files["videos"], files.split, num_classes=len(names))
    videos = [one for one in videos if among is None or one.video_id in among]
    labels = np.zeros((len(videos), len(names)), bool)
    for row, video in enumerate(videos):
        labels[row, list(video.classes)] = True
    ids = tuple(video.video_id for video in videos)
    return ClassTargets(ids, *_filled([(name,) for name in names], templates), names, labels, is_multi_label=True)


def _egtea(files: _Files, templates: Sequence[str], among: Collection[str] | None) -> ClassTargets:
    names = egtea.read_action_texts(files["actions"])
    if files.split == "test" and "clips" not in files.benchmark.files:
        lists = egtea.read_test_splits(files.folder, num_classes=len(names))
    else:
        path = files["clips"]
        clips = egtea.read_clips(path, files.split, num_classes=len(names))
        lists = {path.stem: [clip for clip in clips if among is None or clip.clip_id in among]}
    actions = {clip.clip_id: clip.action for clips in lists.values() for clip in clips}
    members = {name: {clip.clip_id for clip in clips} for name, clips in lists.items()}
    masks = {name: np.array([clip_id in own for clip_id in actions], bool) for name, own in members.items()}
    texts = _filled([(name,) for name in names], templates)
    return ClassTargets(tuple(actions), *texts, names, _one_hot(list(actions.values()), len(names)), lists=masks)


def _choices(files: _Files) -> ChoiceTargets:
    questions = egomcq.read_questions(files["questions"])
    places: dict[str, int] = {}
    for question in questions:
        for clip in question.choices:
            places.setdefault(clip.clip_id, len(places))
    choices = [[places[clip.clip_id] for clip in question.choices] for question in questions]
    numbers = np.array([(one.answer, one.type) for one in questions], np.int64)
    texts = tuple(one.text for one in questions)
    return ChoiceTargets(tuple(places), texts, np.array(choices, np.int64), numbers[:, 0], numbers[:, 1])


def _ids(segments: Sequence[ek100.Segment]) -> tuple[str, ...]:
    return tuple(one.narration_id for one in segments)


def _filled(texts: Sequence[Sequence[str]], templates: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the texts of all classes in all templates, and the class of each."""
    found = [
        (template.replace("{}", text), number)
        for number, own in enumerate(texts)
        for text in own
        for template in templates
    ]
    return tuple(text for text, _ in found), np.array([number for _, number in found], np.int64)


def _one_hot(classes: Sequence[int], num_classes: int) -> np.ndarray:
    labels = np.zeros((len(classes), num_classes), bool)
    labels[np.arange(len(classes)), classes] = True
    return labels
