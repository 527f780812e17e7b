"""Small sets of questions, made by hand."""

from mama_ray.data.questions.question import Question, choice
from mama_ray.data.questions.table import QuestionSet


def open_question(number: int, answer: str = "man", **fields) -> Question:
    known = {"question_id": f"q{number}", "video_id": f"v{number}", "question": "who?", "answers": (answer,)}
    return Question(**known | fields)


def choice_question(number: int, right: int = 0, num_options: int = 5, **fields) -> Question:
    options = [f"option {place}" for place in range(num_options)]
    known = {"question_id": f"q{number}", "video_id": f"v{number}", "question": "which?"}
    return choice(options, right, **known | fields)


def open_set(answers: str, **fields) -> QuestionSet:
    """A question for each word of `answers`."""
    questions = [open_question(number, answer, **fields) for number, answer in enumerate(answers.split())]
    return QuestionSet("small", "open_ended", tuple(questions))


def choice_set(*rights: int, types: str = "") -> QuestionSet:
    """A question for each number of a right option, of the type of that letter."""
    kinds = types or "x" * len(rights)
    questions = [choice_question(number, right, type=kinds[number]) for number, right in enumerate(rights)]
    return QuestionSet("small", "multiple_choice", tuple(questions))
