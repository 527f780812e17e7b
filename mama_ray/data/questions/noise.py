"""Wrong answers put in on purpose, to see whether what is learned about samples finds them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mama_ray.data.questions.question import Question
from mama_ray.data.questions.table import QuestionSet


def swap_answers(questions: QuestionSet, rate: float, *, seed: int) -> tuple[QuestionSet, frozenset[str]]:
    """Return the set with a share of the training questions answered wrongly, and the ids of those.

    A wrong answer is a right one of another training question of the same type, as frequent as it is there, so that
    neither the answer nor its type tells; of multiple choice it is another option. Questions of the other splits stay.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: got {rate}, wanted 0 to 1")
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0x73776170])))
    train = [place for place, question in enumerate(questions.questions) if question.split == "train"]
    chosen = {train[int(place)] for place in rng.permutation(len(train))[: round(rate * len(train))]}
    by_type: dict[str | None, list[str]] = {}
    for place in train:
        question = questions.questions[place]
        by_type.setdefault(question.type, []).append(question.answers[0])
    swapped, ids = list(questions.questions), set()
    for place in sorted(chosen):
        changed = _swapped(swapped[place], by_type[swapped[place].type], rng)
        if changed is not None:
            swapped[place] = changed
            ids.add(changed.question_id)
    return QuestionSet(questions.dataset, questions.task, tuple(swapped)), frozenset(ids)


def _swapped(question: Question, answers: Sequence[str], rng: np.random.Generator) -> Question | None:
    """Return the question with another answer, None where its type has no other."""
    if question.right_option is not None:
        others = [number for number in range(len(question.options)) if number != question.right_option]
        number = others[int(rng.integers(len(others)))]
        return replace(question, right_option=number, answers=(question.options[number],))
    others = [answer for answer in answers if answer not in question.answers]
    return replace(question, answers=(others[int(rng.integers(len(others)))],)) if others else None
