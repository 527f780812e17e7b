"""Metrics of question answering: from predictions and questions to accuracy, over all questions, by type and by group.

Every question of the split counts: one whose answer no list holds, or whose clip is missing, is wrong, and one without
a prediction is an error. So a score can be worse for what was left out, never better.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mama_ray.data.questions.question import Question, Task
from mama_ray.data.questions.table import QuestionSet, require_unique
from mama_ray.errors import UserError

Prediction = str | int | float | None
"""An answer (open ended), an option's number from 0 (multiple choice) or a count; None is no answer, which is wrong."""

# TGIF-QA's: a predicted count is rounded and clipped to this range. A quarter of the test answers are 0; the official
# code reads them as 1 (`mean_squared_error_from_1`), which its readme does not say.
MIN_COUNT, MAX_COUNT = 1, 10
_STANDARD_ERRORS = 2.0
_MIN_QUESTIONS_FOR_CHANCE = 30
ALL = "all"  # the name of what all questions count for
UNTYPED = "untyped"  # the type of questions that have none
AT_CHANCE = "weights did not load, or do not fit"


@dataclass(frozen=True)
class Tally:
    """How many of some questions were answered rightly.

    Attributes:
        squared_error: of counts, the sum over the questions.
    """

    num_questions: int
    num_right: int
    squared_error: float | None = None

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100.0 * self.num_right / self.num_questions

    @property
    def mean_squared_error(self) -> float | None:
        """Of counts."""
        return None if self.squared_error is None else self.squared_error / self.num_questions


@dataclass(frozen=True)
class QuestionScores:
    """What was right, of all questions, of each type, of each group of types, and of joint questions.

    Attributes:
        joint: items that count as right when all their questions are, such as an answer with its reason.
        headline: the mean over the named scores in percent where a benchmark is one of groups, else the accuracy.
        error_from_1: of counts, the mean squared error where answers of 0 are read as 1.
    """

    overall: Tally
    types: dict[str, Tally]
    groups: dict[str, Tally]
    joint: dict[str, Tally]
    headline: float
    error_from_1: float | None = None

    def to_metrics(self) -> dict[str, float]:
        """Return the numbers by name: accuracy, accuracy/<type or group>, mean_squared_error(_from_1)."""
        metrics = {"accuracy": self.headline}
        for name, tally in (self.types | self.groups | self.joint).items():
            metrics[f"accuracy/{name}"] = tally.accuracy
        if self.overall.mean_squared_error is not None:
            metrics["mean_squared_error"] = self.overall.mean_squared_error
        if self.error_from_1 is not None:
            metrics["mean_squared_error_from_1"] = self.error_from_1
        return metrics


def match_predictions(
    question_ids: Sequence[str], predictions: Sequence[tuple[str, Prediction]]
) -> dict[str, Prediction]:
    """Return the predictions by question_id; UserError unless each question has exactly one, and nothing else any."""
    require_unique([question_id for question_id, _ in predictions], "predictions")
    found, known = dict(predictions), set(question_ids)
    for what, ids in (
        ("predictions are of questions that the set has not", [name for name in found if name not in known]),
        ("questions have no prediction", [name for name in question_ids if name not in found]),
    ):
        if ids:
            raise UserError(
                f"{len(ids)} {what}", got=f"{len(found)} predictions for {len(known)} questions, {', '.join(ids[:3])}",
                wanted="one prediction for each question", remedy="a score of some questions is none of the benchmark",
            )  # fmt: skip
    return found


def is_right(question: Question, prediction: Prediction, task: Task) -> bool:
    """Tell whether a prediction is a right answer: exactly equal to one, the right option's number, or as a count is
    compared."""
    if task == "count":
        return _squared_error(question, prediction) == 0
    if question.options:
        return prediction == question.right_option and not isinstance(prediction, (bool, str))
    return isinstance(prediction, str) and prediction in question.answers


def score(
    questions: QuestionSet,
    predictions: Sequence[tuple[str, Prediction]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    joint: Mapping[str, Sequence[str]] | None = None,
    headline: Sequence[str] = (),
) -> QuestionScores:
    """Score predictions, one for each question of the set, in any order.

    groups: names of sets of types; joint: the types of a video's questions that are right together alone; headline: of
    which types, groups or joint items the first number is the mean. UserError for a prediction that is missing, doubled
    or of no question, and for a video without all questions of a joint item. A group without questions is left out.
    """
    found = match_predictions([question.question_id for question in questions.questions], predictions)
    is_count = questions.task == "count"
    right = {one.question_id: is_right(one, found[one.question_id], questions.task) for one in questions.questions}
    by_type: dict[str, list[Question]] = defaultdict(list)
    for question in questions.questions:
        by_type[question.type or UNTYPED].append(question)

    def tally(chosen: Sequence[Question]) -> Tally:
        total = math.fsum(_squared_error(one, found[one.question_id]) for one in chosen) if is_count else None
        return Tally(len(chosen), sum(right[one.question_id] for one in chosen), total)

    types = {name: tally(by_type[name]) for name in sorted(by_type)}
    members = {name: [one for kind in own for one in by_type.get(kind, ())] for name, own in (groups or {}).items()}
    grouped = {name: tally(own) for name, own in members.items() if own}
    joined = {
        name: _joint_tally(name, [by_type.get(kind, []) for kind in own], right) for name, own in (joint or {}).items()
    }
    _require_own_names(types, grouped, joined)
    overall, parts = tally(questions.questions), types | grouped | joined
    unknown = [name for name in headline if name not in parts]
    if unknown:
        raise UserError("no score of that name", got=", ".join(unknown), wanted=", ".join(parts))
    first = math.fsum(parts[name].accuracy for name in headline) / len(headline) if headline else overall.accuracy
    lifted = [_squared_error(one, found[one.question_id], MIN_COUNT) for one in questions.questions if is_count]
    return QuestionScores(overall, types, grouped, joined, first, math.fsum(lifted) / len(lifted) if lifted else None)


def chance_warning(
    questions: QuestionSet,
    predictions: Sequence[tuple[str, Prediction]],
    scores: QuestionScores,
    *,
    num_answers: int = 0,
) -> str | None:
    """Return what is to be said of an evaluation that does no better than a guess, None where it does better.

    num_answers: of the list that answers come from, where known. Counts are compared with the best constant.
    """
    overall = scores.overall
    if overall.num_questions < _MIN_QUESTIONS_FOR_CHANCE:
        return None
    if questions.task == "count":
        return _count_warning(questions, overall)
    # Models answer with one word when their weights are those of another: that is no guess of 1 in num_answers.
    answers = Counter(prediction for _, prediction in predictions)
    answer, most = answers.most_common(1)[0]
    right = Counter(one.right_option if one.options else one.answers[0] for one in questions.questions)
    if most == overall.num_questions and len(right) > 1:
        return f"all {most} answers are {answer!r}: {AT_CHANCE}"
    chance = 1.0 / questions.num_options if questions.num_options else 1.0 / num_answers if num_answers else 0.0
    deviation = math.sqrt(chance * (1 - chance) / overall.num_questions)
    if overall.num_right / overall.num_questions <= chance + _STANDARD_ERRORS * deviation:
        return f"accuracy {overall.accuracy:.2f} % is at chance ({100 * chance:.2f} %): {AT_CHANCE}"
    return None


def clipped_count(prediction: Prediction) -> int:
    """Return a predicted count as it is compared: rounded, halves up, and clipped to 1 to 10."""
    try:
        value = float("nan") if prediction is None or isinstance(prediction, bool) else float(prediction)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise UserError("a predicted count", got=repr(prediction), wanted="a number")
    return min(max(math.floor(value + 0.5), MIN_COUNT), MAX_COUNT)


def _require_own_names(types: Mapping[str, Tally], *others: Mapping[str, Tally]) -> None:
    """Raise UserError where a type has the name of another score, one of which would hide the other."""
    taken = {ALL}.union(*others)
    doubled = [name for name in types if name in taken]
    if doubled:
        raise UserError(
            "a type of questions has the name of another score", got=f"{len(doubled)}, among them {doubled[0]}",
            wanted=f"types that are not called {', '.join(sorted(taken))}",
        )  # fmt: skip


def _squared_error(question: Question, prediction: Prediction, least: int = 0) -> float:
    right = max(int(question.answers[0]), least)
    if prediction is None:  # no answer is as wrong as can be
        return float(max((MIN_COUNT - right) ** 2, (MAX_COUNT - right) ** 2))
    return float((clipped_count(prediction) - right) ** 2)


def _count_warning(questions: QuestionSet, overall: Tally) -> str | None:
    counts = [int(question.answers[0]) for question in questions.questions]
    best = min(sum((count - other) ** 2 for other in counts) / len(counts) for count in set(counts))
    error = overall.mean_squared_error
    if error is not None and error >= best:
        return f"mean squared error {error:.2f} is no better than one count for all ({best:.2f}): {AT_CHANCE}"
    return None


def _joint_tally(name: str, parts: Sequence[Sequence[Question]], right: Mapping[str, bool]) -> Tally:
    """Count the videos of which the questions of all parts are right; UserError where a video lacks one."""
    by_video = [{question.video_id: question.question_id for question in part} for part in parts]
    sizes = {len(part) for part in parts} | {len(videos) for videos in by_video}
    odd = {video for videos in by_video for video in videos} - set.intersection(*map(set, by_video))
    if odd or len(sizes) != 1 or not by_video[0]:
        raise UserError(
            f"{name} counts answers that are right together", got=f"video {next(iter(sorted(odd)), 'with two of one')}",
            wanted="one question of each of its types for every video",
        )  # fmt: skip
    num_right = sum(all(right[videos[video]] for videos in by_video) for video in by_video[0])
    return Tally(len(by_video[0]), num_right)
