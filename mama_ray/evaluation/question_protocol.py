"""What a result of question answering must name: the benchmark that is asked for, what was done, and the numbers.

A benchmark file of the family question_answering is a `QuestionBenchmark`. All its questions count: one whose clip is
missing is wrong.
"""

import json
from typing import Literal

import pydantic
from pydantic import Field, model_validator

from mama_ray.config import Config
from mama_ray.data.questions.answers import AnswerList, ceiling_of
from mama_ray.data.questions.question import Task
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError, printable, unknown_name
from mama_ray.evaluation.predictions import TASK_OF_FORM, PredictionFormat, Predictions
from mama_ray.evaluation.protocol import CheckpointName
from mama_ray.evaluation.question_answering import (
    ALL,
    UNTYPED,
    QuestionScores,
    chance_warning,
    clipped_count,
    score,
)

RESULT_VERSION = 1
PREDICTIONS_ENDING = "_predictions.json"  # of the file beside a result, after the benchmark's name
_Types = dict[str, tuple[str, ...]]


class QuestionBenchmark(Config):
    """The protocol that a benchmark of questions asks for."""

    family: Literal["question_answering"]
    """Which kind of benchmark this is."""
    dataset: str
    """Name of the data set, as results and questions tables name it."""
    split: str = "test"
    """Split of the questions that is evaluated."""
    task: Task
    """open_ended: one answer, exactly equal to a right one; multiple_choice: one option; count: a number."""
    predictions: PredictionFormat
    """Form of its prediction files."""
    groups: _Types = {}
    """Sets of types of questions that have an accuracy of their own: right ones of the set by questions of the set."""
    joint: _Types = {}
    """Types of a video's questions that count as right together alone, such as an answer and its reason."""
    headline: tuple[str, ...] = ()
    """Of which types, groups or joint ones the first number is the mean; none is the accuracy over all questions."""
    question_length: int | None = Field(default=None, ge=2)
    """Tokens a question is cut to, start and end included; null is the model's own length."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames per clip, at the centres of equal segments; null is the number the model was trained with."""
    image_size: int | None = Field(default=None, ge=8)
    """Side of a frame in pixels; null is the model's own."""
    num_questions: int | None = Field(default=None, ge=1)
    """Questions of the whole benchmark; null is as many as the split has."""
    num_videos: int | None = Field(default=None, ge=1)
    """Videos that they are about."""
    question_ids_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of its sorted question ids, joined by newlines, where there is one official list."""

    @model_validator(mode="after")
    def _predictions_are_of_its_task(self) -> "QuestionBenchmark":
        if (own := TASK_OF_FORM[self.predictions]) != self.task:
            forms = ", ".join(form for form, task in TASK_OF_FORM.items() if task == self.task)
            raise ValueError(f"predictions: {self.predictions} is of {own} questions, wanted of {self.task}: {forms}")
        return self

    @model_validator(mode="after")
    def _names_its_scores(self) -> "QuestionBenchmark":
        doubled = set(self.groups) & set(self.joint)
        if doubled:
            raise ValueError(f"groups and joint: got {sorted(doubled)} in both, wanted one name for one score")
        if ALL in {*self.groups, *self.joint}:
            raise ValueError(f"groups and joint: got {ALL!r}, which is the name of the score of all questions")
        for name, members in {**self.groups, **self.joint, "headline": self.headline}.items():
            if len(set(members)) < len(members) or (not members and name != "headline"):
                raise ValueError(f"{name}: got {list(members)}, wanted at least one, each once")
        return self

    def deviation(self, questions: QuestionSet) -> str:
        """Return how a set of questions differs from the whole benchmark, "" where it is whole."""
        wanted, found = self.num_questions or len(questions), len(questions)
        if found != wanted:
            return f"{found:,} of {wanted:,} questions" if found < wanted else f"{found:,} questions for {wanted:,}"
        if self.question_ids_sha256 not in (None, questions.ids_sha256):
            return "other questions"
        return ""


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class QuestionProtocol(_Record):
    """Everything that must agree before two numbers of question answering may be compared."""

    dataset: str
    split: str
    task: Task
    ids_sha256: str
    """SHA-256 of the sorted question ids, joined by newlines."""
    num_questions: int
    num_videos: int
    num_missing: int = 0
    """Questions whose clip is not there or cannot be decoded: wrong."""
    num_options: int = 0
    num_answers: int | None = None
    """Answers of the list that an open-ended model chooses from, where there is one."""
    answers_sha256: str | None = None
    ceiling: float | None = None
    """Percent of the questions whose answer is on the list: no model of it can have more."""
    question_length: int | None = None
    num_cut: int | None = None
    """Questions that were longer than that and lost their end."""
    num_frames: int | None = None
    sampling: str | None = None
    image_size: int | None = None
    resize: str | None = None
    deviation: str = ""
    """How what was there differs from the whole benchmark; empty for a whole one."""

    @property
    def name(self) -> str:
        """The benchmark's name, as `msvd_qa (900 of 13,157 questions)` where it was not whole."""
        return f"{self.dataset} ({self.deviation})" if self.deviation else self.dataset


class Count(_Record):
    """How many of some questions were answered rightly."""

    num_right: int
    num_questions: int


class AnsweredExample(_Record):
    """One question with what was answered."""

    question_id: str
    clip_id: str
    question: str
    right: str
    predicted: str | None
    type: str | None
    options: tuple[str, ...] = ()
    is_right: bool | None = None


class QuestionResult(_Record):
    """The numbers of one model, or of one file of predictions, under one protocol."""

    version: int = Field(default=RESULT_VERSION, ge=1, le=RESULT_VERSION)
    protocol: QuestionProtocol
    source: str
    """Where the predictions came from: a checkpoint, or a file."""
    checkpoint: CheckpointName | None = None
    metrics: dict[str, float]
    """accuracy (of the headline), accuracy/<type, group or joint>, mean_squared_error, in percent but for the last."""
    counts: dict[str, Count]
    """Of all, and of every type, group and joint."""
    warning: str | None = None
    """What is to be said where the answers are no better than a guess."""
    examples: tuple[AnsweredExample, ...] = ()
    duration_s: float | None = None

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "QuestionResult":
        """Raise UserError when the text is no result of this version."""
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                "not a result of question answering", got=place or "no JSON", wanted=first["msg"]
            ) from error


def measure(
    benchmark: QuestionBenchmark,
    questions: QuestionSet,
    predictions: Predictions,
    *,
    source: str,
    answers: AnswerList | None = None,
    **named: object,
) -> QuestionResult:
    """Score predictions of the benchmark's questions and name all that a result must name.

    `questions` are those of the benchmark's split, `named` what else the protocol says, such as num_frames. UserError
    where the set is of another task, and where the predictions are not one for each question.
    """
    if questions.task != benchmark.task:
        got = f"questions of {questions.dataset} ({questions.task})"
        raise UserError(f"the benchmark {benchmark.dataset} is {benchmark.task}", got=got, wanted="its own questions")
    _require_types(benchmark, questions)
    scores = score(questions, predictions, groups=benchmark.groups, joint=benchmark.joint, headline=benchmark.headline)
    listed = {}
    if answers is not None and questions.task == "open_ended":
        ceiling = ceiling_of(answers, questions.questions).percent
        listed = {"num_answers": len(answers), "answers_sha256": answers.sha256, "ceiling": ceiling}
    protocol = QuestionProtocol.model_validate(
        {
            "dataset": benchmark.dataset,
            "split": benchmark.split,
            "task": benchmark.task,
            "ids_sha256": questions.ids_sha256,
            "num_questions": len(questions),
            "num_videos": len({question.video_id for question in questions.questions}),
            "num_options": questions.num_options,
            "deviation": benchmark.deviation(questions),
            **listed,
            **named,
        }
    )
    warning = chance_warning(questions, predictions, scores, num_answers=len(answers) if answers else 0)
    return QuestionResult(
        protocol=protocol, source=source, metrics=scores.to_metrics(), counts=_counts(scores), warning=warning
    )


def check_scores(benchmark: QuestionBenchmark, questions: QuestionSet, answers: AnswerList | None) -> None:
    """Raise UserError for what is wrong with the benchmark's scores, or as counts with the list of answers, before
    anything is answered."""
    for answer in answers.answers if answers is not None and benchmark.task == "count" else ():
        clipped_count(answer)
    measure(benchmark, questions, [(one.question_id, None) for one in questions.questions], source="", answers=answers)


def _require_types(benchmark: QuestionBenchmark, questions: QuestionSet) -> None:
    """Raise UserError for a type of a group or joint score that no question has; a part of a benchmark may lack one."""
    types = {question.type or UNTYPED for question in questions.questions}
    if benchmark.deviation(questions):
        return
    for name, members in {**benchmark.groups, **benchmark.joint}.items():
        for member in members:
            if member not in types:
                raise unknown_name(f"type of questions in {name} of {benchmark.dataset}", member, sorted(types))


def result_table(result: QuestionResult) -> str:
    """Return the result as text: the protocol above, then a line for each score."""
    protocol = result.protocol
    ceiling = f", {protocol.num_answers} answers, ceiling {protocol.ceiling:.2f} %" if protocol.num_answers else ""
    lines = [
        f"{protocol.name} {protocol.split}: {protocol.num_questions} {protocol.task} questions about "
        f"{protocol.num_videos} videos{ceiling}, ids {protocol.ids_sha256[:12]}"
    ]
    rows = [("accuracy", f"{result.metrics['accuracy']:.2f} %", _share(result.counts[ALL]))]
    errors = [name for name in result.metrics if name.startswith("mean_squared_error")]
    rows[:0] = [(name.replace("_", " "), f"{result.metrics[name]:.2f}", "") for name in errors]
    rows += [
        (printable(name), f"{result.metrics[f'accuracy/{name}']:.2f} %", _share(count))
        for name, count in result.counts.items() if name != ALL
    ]  # fmt: skip
    width = max(len(name) for name, _, _ in rows)
    lines += [f"{name.ljust(width)}  {value.rjust(8)}  {share}".rstrip() for name, value, share in rows]
    return "\n".join([*lines, *([f"WARNING: {result.warning}"] if result.warning else [])])


def _share(count: Count) -> str:
    return f"{count.num_right} of {count.num_questions}"


def _counts(scores: QuestionScores) -> dict[str, Count]:
    parts = scores.types | scores.groups | scores.joint
    return {
        name: Count(num_right=tally.num_right, num_questions=tally.num_questions)
        for name, tally in {ALL: scores.overall, **parts}.items()
    }
