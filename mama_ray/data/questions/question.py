"""What a question is: a text about one video, its right answers, and for multiple choice its options.

The same contract holds for a line of JSON, a cell `questions` of an annotation table and a row of a questions table:
{question_id, question, answer or answers, options?, type?}. Where there are options, the answer is the right one's
number, counted from 0, or its text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mama_ray.data.clip import SPLITS, check_text, normal_split

Task = Literal["open_ended", "multiple_choice", "count"]
TASKS: tuple[str, ...] = get_args(Task)
FIELDS = ("question_id", "question", "answer", "answers", "options", "type", "video_id", "clip_id", "split")
_MIN_OPTIONS = 2


@dataclass(frozen=True)
class Question:
    """One question about a video, or about one clip of it where `clip_id` is given.

    Attributes:
        answers: the right answers, of which one is enough; of multiple choice the right option's text alone.
        options: of multiple choice, in their order; else none.
        right_option: the right one's number, counted from 0; two options may have one text.

    Raises ValueError, naming the field, for anything that breaks the contract.
    """

    question_id: str
    video_id: str
    question: str
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    right_option: int | None = None
    type: str | None = None
    split: str | None = None
    clip_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("question_id", "video_id", "question"):
            _check_filled(name, getattr(self, name))
        if not self.answers:
            raise ValueError("answer: got none, wanted a right one")
        for answer in self.answers:
            _check_filled("answer", answer)
        if self.options:
            _check_options(self.options, self.right_option, self.answers)
        elif self.right_option is not None:
            raise ValueError(f"answer: got option {self.right_option} of none, wanted a text, or options")
        for name in ("type", "clip_id"):
            if getattr(self, name) is not None:
                _check_filled(name, getattr(self, name))
        if self.split is not None and self.split not in SPLITS:
            raise ValueError(f"split: got {self.split!r}, wanted one of {', '.join(SPLITS)}")

    @property
    def task(self) -> Task:
        """Multiple choice where there are options, else open ended; that answers are counts is said by their table."""
        return "multiple_choice" if self.options else "open_ended"

    def to_dict(self) -> dict[str, Any]:
        """Return the contract's fields, those that say nothing left out; `parse_question` reads them back."""
        answer: dict[str, Any] = {"answer": self.right_option if self.options else self.answers[0]}
        if len(self.answers) > 1:
            answer = {"answers": list(self.answers)}
        fields = {
            "question_id": self.question_id,
            "question": self.question,
            **answer,
            "options": list(self.options),
            "type": self.type,
            "video_id": self.video_id,
            "clip_id": self.clip_id,
            "split": self.split,
        }
        return {name: value for name, value in fields.items() if value is not None and value != []}


def parse_question(record: Mapping[str, Any], **known: str | None) -> Question:
    """Check a record of the contract's fields; `known` has those that its place says, such as the video's.

    Raises ValueError that names the field.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"question: got {type(record).__name__}, wanted an object")
    unknown = sorted(map(str, set(record) - set(FIELDS)))
    if unknown:
        raise ValueError(f"question: got unknown field {unknown[0]!r}, wanted {', '.join(FIELDS)}")
    if record.get("answer") is not None and record.get("answers") is not None:
        raise ValueError("answer: got both answer and answers, wanted one of them")
    options = tuple(_texts("options", record.get("options")))
    answers, right_option = _right(record, options)
    split = _given(record, known, "split")
    named = {name: _name(name, _given(record, known, name)) for name in ("question_id", "video_id", "clip_id", "type")}
    return Question(
        question_id=named["question_id"] or "",
        video_id=named["video_id"] or "",
        question=record.get("question") or "",
        answers=answers,
        options=options,
        right_option=right_option,
        type=named["type"] or None,
        split=None if split is None else _split(split),
        clip_id=named["clip_id"] or None,
    )


def choice(options: Sequence[str], right_option: Any, **fields: Any) -> Question:
    """Return a question of multiple choice; `right_option` is a number, counted from 0, or its text.

    Raises ValueError where it is no number of an option, and what `Question` raises.
    """
    number = option_number(right_option, len(options))
    return Question(answers=(options[number],), options=tuple(options), right_option=number, **fields)


def option_number(value: Any, num_options: int) -> int:
    """Return the number of an option, counted from 0, from a number or its text; ValueError where there is none."""
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if isinstance(value, bool) or not 0 <= number < num_options:
        raise ValueError(f"answer: got option {value!r}, wanted a number from 0 to {num_options - 1}")
    return number


def _right(record: Mapping[str, Any], options: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """Return the right answers and, of multiple choice, the number of the right option."""
    given = record.get("answer") if record.get("answer") is not None else record.get("answers")
    if not options:
        return tuple(_texts("answer", given)), None
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != 1:
            raise ValueError(f"answer: got {len(given)} right options, wanted one")
        given = given[0]
    if given is None:
        raise ValueError("answer: got no right option, wanted one")
    if isinstance(given, str):
        numbers = [number for number, option in enumerate(options) if option == given]
        if len(numbers) != 1:
            raise ValueError(f"answer: got {given!r}, which is {len(numbers)} of the options, wanted exactly one")
        return (given,), numbers[0]
    number = option_number(given, len(options))
    return (options[number],), number


def _texts(name: str, value: Any) -> list[str]:
    """Return one text or a list of texts as a list; whole numbers are texts, as counts are."""
    if value is None:
        return []
    items = [value] if isinstance(value, (str, int)) else value
    if isinstance(value, (bool, float, Mapping)) or not isinstance(items, Sequence):
        raise ValueError(f"{name}: got {value!r}, wanted a text or a list of texts")
    texts = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError(f"{name}: got {item!r}, wanted a text")
        texts.append(str(item))
    return texts


def _given(record: Mapping[str, Any], known: Mapping[str, str | None], name: str) -> Any:
    """Return what the record says, else its place; 0 is an id, an empty text says nothing."""
    value = record.get(name)
    return known.get(name) if value is None or value == "" else value


def _name(field: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        raise ValueError(f"{field}: got {value!r}, wanted a text")
    return None if value is None else str(value)


def _split(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"split: got {value!r}, wanted one of {', '.join(SPLITS)}")
    return normal_split(value)


def _check_filled(name: str, text: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name}: got {text!r}, wanted a text that is not empty")
    check_text(name, text)


def _check_options(options: tuple[str, ...], right_option: int | None, answers: tuple[str, ...]) -> None:
    if len(options) < _MIN_OPTIONS:
        raise ValueError(f"options: got {len(options)}, wanted at least {_MIN_OPTIONS}")
    for option in options:
        _check_filled("options", option)
    if right_option is None:
        raise ValueError("answer: got no right option, wanted one")
    right = options[option_number(right_option, len(options))]
    if answers != (right,):
        raise ValueError(f"answer: got {', '.join(answers)!r}, wanted the right option's text, {right!r}")
