"""Prediction files in each benchmark's own format, read from others and written for others.

Files of numbered answers say nothing of how they count: HQGA's answers begin at 1 and 0 is an answer off the list,
TranSTR's begin at 0 and -1 is one. So the convention is named, and where a file records the right answers as well, they
must be those of the questions under it: what was read with another list or base is an error and no score.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mama_ray.data.questions.answers import UNLISTED, AnswerList
from mama_ray.data.questions.official.causal_vidqa import PARTS
from mama_ray.data.questions.question import Question, Task
from mama_ray.data.questions.table import QuestionSet, require_unique
from mama_ray.errors import UserError
from mama_ray.evaluation.question_answering import Prediction

PredictionFormat = Literal[
    "option_numbers", "causal_vidqa", "answer_numbers", "counts", "answers_by_video", "answer_records"
]
"""option_numbers, answer_numbers, counts: {id: {prediction, answer}} (NExT-QA, HQGA); causal_vidqa: the same by
<video>_<suffix> or <video>_<0 to 5>; answers_by_video: {video: {qid: answer}} (NExT-OE); answer_records: [{question_id,
answer}] (ActivityNet-QA)."""
Predictions = list[tuple[str, Prediction]]
TASK_OF_FORM: dict[str, Task] = {
    "option_numbers": "multiple_choice",
    "causal_vidqa": "multiple_choice",
    "answer_numbers": "open_ended",
    "counts": "count",
    "answers_by_video": "open_ended",
    "answer_records": "open_ended",
}


_MOST = 1 << 53  # greater whole numbers are not exact in JSON


@dataclass(frozen=True)
class Numbering:
    """How a file of numbered answers counts.

    Attributes:
        answers: the list that the numbers are of.
        index_base: the number of its first answer, 0 or 1; of options, of the first option.
        unknown: the number that stands for an answer off the list; None where the file has none.
    """

    answers: AnswerList | None = None
    index_base: int = 0
    unknown: int | None = UNLISTED


def read_predictions(
    text: str | bytes, form: PredictionFormat, questions: QuestionSet, numbering: Numbering, *, source: str
) -> Predictions:
    """Return (question_id, prediction) in the file's order. Ids are not matched here, but for recorded answers.

    Raises UserError that names `source` for another form, a doubled id, a number that the list or the options do not
    have, and recorded answers that are not those of the questions.
    """
    if questions.task != TASK_OF_FORM[form]:
        got = f"questions of {questions.dataset} ({questions.task})"
        raise UserError(f"the form {form} is of {TASK_OF_FORM[form]} questions", got=got, remedy="name another --form")
    value = _parse(text, source)
    if form == "answer_records":
        return _read_records(value, source)
    if not isinstance(value, dict):
        raise _not_of(form, source, f"a JSON {type(value).__name__}")
    if form == "answers_by_video":
        return _read_by_video(value, source)
    if form == "answer_numbers" and numbering.answers is None:
        raise UserError(f"{source} has numbers for answers", wanted="the list of answers that they are of")
    records = {_known_id(name, form): record for name, record in value.items()}
    if len(records) != len(value):
        raise UserError(f"{source} names a question in two ways", wanted="each question once")
    by_id = {question.question_id: question for question in questions.questions}
    predictions, odd = [], []
    for name, record in records.items():
        if not isinstance(record, dict) or "prediction" not in record:
            raise _not_of(form, source, f"{name}: {record!r}")
        predictions.append((name, _prediction(record["prediction"], form, numbering, questions, f"{name} of {source}")))
        question, recorded = by_id.get(name), record.get("answer")
        if question is not None and recorded is not None and recorded != right_value(question, form, numbering):
            odd.append(f"{name} says {recorded!s:.100}, the question {right_value(question, form, numbering)}")
    if odd:
        raise UserError(
            f"answers that {source} records are not the questions'", got=f"{len(odd)} of {len(records)}: {odd[0]}",
            wanted=f"numbers from {numbering.index_base}, {numbering.unknown} for what is not listed",
            remedy="say --index_base and --unknown as the file counts, and give its own list and split",
        )  # fmt: skip
    return predictions


def write_predictions(
    form: PredictionFormat, questions: QuestionSet, predictions: Mapping[str, Prediction], numbering: Numbering
) -> str:
    """Return a file of predictions, one for each question and in the order of the questions."""
    ordered = [(question, predictions[question.question_id]) for question in questions.questions]
    if form == "answer_records":
        value: Any = [{"question_id": one.question_id, "answer": answer or ""} for one, answer in ordered]
    elif form == "answers_by_video":
        value = {}
        for one, answer in ordered:
            own = value.setdefault(one.video_id, {})
            own[one.question_id.removeprefix(f"{one.video_id}_")] = answer or ""
    else:
        value = {
            one.question_id: {
                "prediction": _value(answer, form, numbering),
                "answer": right_value(one, form, numbering),
            }
            for one, answer in ordered
        }
    return json.dumps(value, ensure_ascii=False, indent=1)


def right_value(question: Question, form: PredictionFormat, numbering: Numbering) -> int | str | None:
    """Return the right answer as a file of this form records it."""
    if form == "counts":
        return int(question.answers[0])
    if form == "answer_numbers":
        assert numbering.answers is not None
        number = numbering.answers.number_of(question)
        return numbering.unknown if number == UNLISTED else number + numbering.index_base
    return None if question.right_option is None else question.right_option + numbering.index_base


def _value(prediction: Prediction, form: PredictionFormat, numbering: Numbering) -> Prediction:
    if form == "answer_numbers":
        assert numbering.answers is not None
        number = numbering.answers.numbers.get(str(prediction), UNLISTED)
        return numbering.unknown if number == UNLISTED else number + numbering.index_base
    if form == "counts":  # a list's answers are texts
        value = None if prediction is None else float(prediction)
        return int(value) if value is not None and value.is_integer() else value
    return None if prediction is None else int(prediction) + numbering.index_base


def _prediction(
    value: Any, form: PredictionFormat, numbering: Numbering, questions: QuestionSet, source: str
) -> Prediction:
    """Return what a number of a file says, null being no answer; UserError where it says nothing."""
    if value is None:
        return None
    # Compared, not asked for being finite: a whole number of hundreds of digits is none of float's.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MOST
    if not is_number or (form != "counts" and value != int(value)):
        raise UserError(f"prediction of {source}", got=f"{value!r:.100}", wanted="a number, or null for no answer")
    if form == "counts":
        return value
    if form == "answer_numbers" and value == numbering.unknown:
        return None
    assert form != "answer_numbers" or numbering.answers is not None
    texts = numbering.answers.answers if form == "answer_numbers" and numbering.answers else ()
    count = len(texts) if form == "answer_numbers" else questions.num_options
    number = int(value) - numbering.index_base
    if not 0 <= number < count:
        unknown = f", or {numbering.unknown}" if form == "answer_numbers" and numbering.unknown is not None else ""
        raise UserError(
            f"prediction of {source}", got=f"number {value:g}",
            wanted=f"{numbering.index_base} to {count - 1 + numbering.index_base}{unknown}",
            remedy="say --index_base and --unknown as the file counts",
        )  # fmt: skip
    return texts[number] if texts else number


def _read_records(value: Any, source: str) -> Predictions:
    if not isinstance(value, list):
        raise _not_of("answer_records", source, f"a JSON {type(value).__name__}")
    predictions = []
    for record in value:
        if not isinstance(record, dict) or not {"question_id", "answer"} <= set(record):
            raise _not_of("answer_records", source, repr(record))
        predictions.append(
            (str(record["question_id"]), _text(record["answer"], f"{record['question_id']} of {source}"))
        )
    return predictions


def _read_by_video(value: dict[str, Any], source: str) -> Predictions:
    predictions = []
    for video, own in value.items():
        if not isinstance(own, dict):
            raise _not_of("answers_by_video", source, f"{video}: {own!r}")
        predictions += [(f"{video}_{qid}", _text(answer, f"{video}_{qid} of {source}")) for qid, answer in own.items()]
    return predictions


def _text(value: Any, source: str) -> Prediction:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UserError(f"answer of {source}", got=repr(value), wanted="a text")
    return str(value) or None


def _known_id(name: str, form: PredictionFormat) -> str:
    """Return a question's id; Causal-VidQA's own script numbers a video's questions from 0 to 5."""
    video, _, part = name.rpartition("_")
    by_number = {str(number): suffix for number, suffix in enumerate(PARTS)} if form == "causal_vidqa" else {}
    return f"{video}_{by_number[part]}" if part in by_number else name


def _parse(text: str | bytes, source: str) -> Any:
    """Return the JSON; UserError for a key that comes twice, of which a plain reader keeps the last without a word."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        require_unique([name for name, _ in pairs], f"predictions of {source}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError("predictions cannot be read", got=f"{source} ({error})", wanted="JSON") from None


def _not_of(form: str, source: str, got: str) -> UserError:
    shapes = {
        "answer_records": "[{question_id, answer}, ...]",
        "answers_by_video": "{video: {qid: answer}}",
    }
    return UserError(f"no predictions of the form {form}", got=f"{source} with {got}",
                     wanted=shapes.get(form, "{question_id: {prediction, answer}}"))  # fmt: skip
