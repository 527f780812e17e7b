"""What the readers of official files do alike: rows of a file, one error that names the row, splits and types."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from mama_ray.data.questions.question import Question, Task
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError

Split = Literal["train", "val", "test"]
_FIRST_WORDS = ("what", "who", "how", "when", "where")


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a table with a header as texts; UserError where columns are missing or a row has not as many
    fields.

    Tab-separated files are read with quoting off: TGIF-QA has quotes inside its fields, and a field that opens one and
    never closes it would swallow the rows behind it.
    """
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=delimiter, quoting=quoting)
        rows = list(reader)
        fields = reader.fieldnames  # which reads on where there is no line at all
    names = [name for name in fields or () if name]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:  # of which a reader takes the last
        raise UserError(f"{path.name} has a column twice", got=doubled[0], wanted="each column once")
    missing = [name for name in columns if name not in names]
    if missing:
        got = ", ".join(names) or "an empty file"
        raise UserError(f"{path.name} lacks columns", got=got, wanted=", ".join(columns))
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise UserError(f"line {number} of {path.name}", got="another number of fields", wanted=f"{len(names)}")
    return [{name: unquoted(value) for name, value in row.items()} for row in rows] if delimiter == "\t" else rows


def unquoted(text: str) -> str:
    """Return a field of a file that was read with quoting off without its own quotes, where it has both."""
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"') if is_quoted else text


def _parse(text: str) -> Any:
    """Return what JSON holds; ValueError for an object with a name twice, of which a plain reader keeps the last."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        doubled = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if doubled:
            raise ValueError(f"{doubled[0]!r} twice in one object")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def read_list(path: Path) -> list[Any]:
    """Return the list that a JSON file holds, or the lines of JSON lines; UserError for anything else."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        # Not splitlines: a text may have Unicode's other ends of lines in it, such as U+2028.
        value = [_parse(line) for line in text.split("\n") if line.strip()] if path.suffix == ".jsonl" else None
        value = _parse(text) if value is None else value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} cannot be read", got=f"{error}", wanted="JSON") from None
    if not isinstance(value, list):
        raise UserError(f"{path.name} is no list", got=type(value).__name__, wanted="a list of questions")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; UserError for anything else."""
    try:
        value = _parse(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} cannot be read", got=f"{error}", wanted="JSON") from None
    if not isinstance(value, dict):
        raise UserError(f"{path.name} is no object", got=type(value).__name__, wanted="a JSON object")
    return value


def question_set(
    path: Path, dataset: str, task: Task, records: Iterable[Any], make: Callable[[Any], Question]
) -> QuestionSet:
    """Return the set of what `make` makes of each record; UserError names the first record that is wrong."""
    questions = []
    for number, record in enumerate(records, 1):
        try:
            questions.append(make(record))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            told = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"question {number} of {path.name}", got=told) from None
    if not questions:
        raise UserError(f"{path.name} has no questions", wanted=f"an official file of {dataset}")
    return QuestionSet(dataset, task, tuple(questions))


def numbered(names: Sequence[str], number: Any, field: str) -> str:
    """Return the name that a number stands for, counted from 0; ValueError where there is none."""
    place = int(number)
    if not 0 <= place < len(names):
        raise ValueError(f"{field}: got {number}, wanted 0 to {len(names) - 1}")
    return names[place]


def first_word(question: str) -> str:
    """Return the type of a question by its first word, `other` where it is none of the usual five."""
    word = question.split(maxsplit=1)[0].lower().rstrip("?,.!") if question.strip() else ""
    return word if word in _FIRST_WORDS else "other"


def require_split(path: Path, numbers: Iterable[int], split: Split, ranges: dict[str, range]) -> None:
    """Raise UserError where videos are of another split than the file is read as: their numbers say which."""
    found = Counter(next((name for name, one in ranges.items() if number in one), "none") for number in numbers)
    if set(found) != {split}:
        got = ", ".join(f"{count} questions of {name}" for name, count in found.items())
        own = ranges[split]
        raise UserError(
            f"{path.name} is not split {split}", got=got, wanted=f"videos {own.start} to {own.stop - 1}",
            remedy="say --split",
        )  # fmt: skip
