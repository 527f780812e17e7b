"""The answers that an open-ended model can give, made from training questions alone, and what they can reach at most.

A list is part of a run: it is kept with it, and a result names its hash and its ceiling, the share of the questions
whose answer is on it. What is not on the list stays in the denominator and counts as wrong.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mama_ray.data.clip import is_text
from mama_ray.data.questions.question import Question
from mama_ray.errors import UserError

UNLISTED = -1
ANSWERS_NAME = "answers.json"  # in a run's folder and in a model's


@dataclass(frozen=True)
class AnswerList:
    """Answers in the order of their numbers, with how often each is right in training; 0 where nobody counted."""

    answers: tuple[str, ...]
    counts: tuple[int, ...]
    num_questions: int = 0
    """Training questions that were counted, those with answers off the list among them."""
    numbers: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.answers:
            raise UserError("a list of answers is empty", wanted="at least one answer")
        doubled = [answer for answer, count in Counter(self.answers).items() if count > 1]
        if doubled:
            raise UserError("a list of answers names one twice", got=", ".join(doubled[:3]), wanted="each once")
        object.__setattr__(self, "numbers", {answer: number for number, answer in enumerate(self.answers)})

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def sha256(self) -> str:
        """Of the answers in their order, joined by newlines."""
        return hashlib.sha256("\n".join(self.answers).encode()).hexdigest()

    def number_of(self, question: Question) -> int:
        """Return the number of the question's first right answer that is on the list, UNLISTED where none is."""
        return next((self.numbers[answer] for answer in question.answers if answer in self.numbers), UNLISTED)

    def to_json(self) -> str:
        """One object; `answer_list_from_json` reads it back."""
        record = {"answers": self.answers, "counts": self.counts, "num_questions": self.num_questions}
        return json.dumps(record, ensure_ascii=False, indent=0)


@dataclass(frozen=True)
class Ceiling:
    """How many questions have an answer that a list holds: no model of that list can have more right."""

    num_listed: int
    num_questions: int

    @property
    def percent(self) -> float:
        """The best accuracy."""
        return 100.0 * self.num_listed / self.num_questions


def build_answer_list(train: Iterable[Question], size: int | None = None, *, min_count: int = 1) -> AnswerList:
    """Return the answers of training questions, the most frequent first and equally frequent ones by name.

    size: the most there are; None is all of at least `min_count`. Where a question has several right answers, each
    counts. Raises UserError for a question of another split, whose answers nobody may know, and where none is left.
    """
    counts: Counter[str] = Counter()
    num_questions = 0
    for question in train:
        if question.split not in ("train", None):
            raise UserError(
                f"question {question.question_id} of split {question.split} for the list of answers",
                wanted="questions of split train alone",
            )
        counts.update(set(question.answers))
        num_questions += 1
    ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
    chosen = [answer for answer in ordered if counts[answer] >= min_count][:size]
    if not chosen:
        got = f"{num_questions} questions"
        raise UserError("no answers for a list", got=got, wanted=f"training answers that come {min_count} times")
    return AnswerList(tuple(chosen), tuple(counts[answer] for answer in chosen), num_questions)


def ceiling_of(answers: AnswerList, questions: Sequence[Question]) -> Ceiling:
    """Return how far the list reaches for some questions."""
    return Ceiling(sum(answers.number_of(question) != UNLISTED for question in questions), len(questions))


def answer_list_from_json(text: str | bytes, source: str) -> AnswerList:
    """Read a list: one of `AnswerList.to_json`, or a JSON list of answers in the order of their numbers, as published
    lists are. Raises UserError that names `source`.
    """
    wanted = 'a JSON list of answers, or {"answers": [...]}'
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("a list of answers cannot be read", got=f"{source} ({error})", wanted=wanted) from None
    published = record if isinstance(record, list) else None
    own = record if isinstance(record, dict) else {}
    answers: Any = published if published is not None else own.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise UserError("not a list of answers", got=source, wanted=wanted)
    counts: Any = own.get("counts", [0] * len(answers))
    if not all(map(is_text, answers)):
        raise UserError("an answer of a list is no text", got=f"{source}, half of a surrogate pair", wanted="Unicode")
    num_questions: Any = own.get("num_questions", 0)
    if type(num_questions) is not int or num_questions < 0:
        raise UserError("num_questions of a list of answers", got=f"{source}: {num_questions!r:.100}", wanted="a count")
    if not isinstance(counts, list) or len(counts) != len(answers) or not all(type(one) is int for one in counts):
        raise UserError("counts of a list of answers", got=source, wanted="a whole number for each answer")
    return AnswerList(tuple(answers), tuple(counts), num_questions)
