"""A questions table: one Parquet file per set of questions, beside the shards and tied to their clips by video.

So one set of prepared shards serves any number of sets of questions, and a set is changed without touching a video.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.index import hash_ids
from mama_ray.data.questions.question import TASKS, Question, Task
from mama_ray.errors import UserError, unknown_name
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors

TABLE_VERSION = "1"
_VERSION_KEY, _DATASET_KEY, _TASK_KEY = (
    f"mama_ray.questions.{name}".encode() for name in ("version", "dataset", "task")
)
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("video_id", pa.string()),
        ("clip_id", pa.string()),
        ("split", pa.string()),
        ("type", pa.string()),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("options", pa.list_(pa.string())),
        ("right_option", pa.int32()),
    ]
)
_MOST_DIGITS = 9  # of a count
_MAKE_ONE = "make one with python -m mama_ray.data.questions"


@dataclass(frozen=True)
class QuestionSet:
    """The questions of one data set: one task, in the order of their file.

    Raises UserError where a question_id comes twice, where the task's answers or options are not there, and where
    questions of multiple choice have not equally many options.
    """

    dataset: str
    task: Task
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise unknown_name("task of questions", self.task, TASKS)
        require_unique([question.question_id for question in self.questions], f"questions of {self.dataset}")
        for question in self.questions:
            _check_task(question, self.task)
        counts = Counter(len(question.options) for question in self.questions)
        if len(counts) > 1:
            usual = counts.most_common(1)[0][0]
            odd = next(question for question in self.questions if len(question.options) != usual)
            raise UserError(
                f"question {odd.question_id} of {self.dataset}", got=f"{len(odd.options)} options",
                wanted=f"{usual}, as {counts[usual]} others have",
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def num_options(self) -> int:
        """Options of each question; 0 of open-ended ones."""
        return len(self.questions[0].options) if self.questions else 0

    @property
    def ids_sha256(self) -> str:
        """SHA-256 of the sorted question_ids."""
        return hash_ids(question.question_id for question in self.questions)

    def of_split(self, split: str) -> "QuestionSet":
        """Return the questions of one split; UserError where there are none."""
        chosen = tuple(question for question in self.questions if question.split == split)
        if not chosen:
            counts = Counter(question.split or "no split" for question in self.questions)
            got = ", ".join(f"{count} of {name}" for name, count in counts.items()) or "no questions"
            raise UserError(f"no questions of split {split} in {self.dataset}", got=got)
        return QuestionSet(self.dataset, self.task, chosen)


def join_sets(sets: Sequence[QuestionSet]) -> QuestionSet:
    """Return the questions of several splits as one set; UserError where they are of two data sets or tasks."""
    for one, other in pairwise(sets):
        if (one.dataset, one.task) != (other.dataset, other.task):
            got = f"{one.dataset} ({one.task}) and {other.dataset} ({other.task})"
            raise UserError("two sets of questions cannot be one", got=got, wanted="one data set and task")
    return QuestionSet(sets[0].dataset, sets[0].task, tuple(question for one in sets for question in one.questions))


def require_unique(question_ids: Iterable[str], what: str) -> None:
    """Raise UserError where an id comes twice: a doubled question would count twice, or hide another."""
    counts = Counter(question_ids)
    doubled = [question_id for question_id, count in counts.items() if count > 1]
    if doubled:
        raise UserError(f"{what} have doubled ids", got=f"{len(doubled)}, among them {', '.join(doubled[:3])}",
                        wanted="each question_id once")  # fmt: skip


def write_questions(place: Place, questions: QuestionSet) -> None:
    """Write a set as one Parquet file, whole or not at all."""
    metadata = {_VERSION_KEY: TABLE_VERSION, _DATASET_KEY: questions.dataset, _TASK_KEY: questions.task}
    columns = {name: [getattr(question, name) for question in questions.questions] for name in SCHEMA.names}
    table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in SCHEMA})
    with storage_errors(f"{place}"), place.open_whole() as stream:
        pq.write_table(table.replace_schema_metadata(metadata), stream, compression="zstd")


def read_questions(place: Place) -> QuestionSet:
    """Read a set; UserError where the file is missing, damaged, no questions table, or a row breaks the contract."""
    with storage_errors(f"{place}"):
        try:
            table = read_parquet(place, lambda parquet: parquet.read())
        except FileNotFoundError as error:
            raise UserError("no questions table", got=f"{place}", remedy=_MAKE_ONE) from error
        except pa.ArrowInvalid as error:
            detail = " ".join(str(error).split())
            raise UserError("the questions cannot be read", got=f"{place} ({detail})", remedy=_MAKE_ONE) from error
    metadata = table.schema.metadata or {}
    version = metadata.get(_VERSION_KEY, b"none").decode(errors="replace")
    is_named = {_DATASET_KEY, _TASK_KEY} <= set(metadata)
    if version != TABLE_VERSION or not is_named or not table.schema.remove_metadata().equals(SCHEMA):
        raise UserError(
            "not a questions table", got=f"{place}, version {version}", wanted=f"version {TABLE_VERSION}",
            remedy=_MAKE_ONE,
        )  # fmt: skip
    questions = []
    try:
        rows = table.to_pylist()
    except UnicodeDecodeError as error:
        raise UserError("the questions cannot be read", got=f"{place} ({error})", remedy=_MAKE_ONE) from error
    for number, row in enumerate(rows, 1):
        try:
            lists = {name: tuple(row[name] or ()) for name in ("answers", "options")}
            questions.append(Question(**row | lists))
        except ValueError as error:
            raise UserError(f"row {number} of {place}", got=f"{error}", remedy=_MAKE_ONE) from error
    dataset, task = (metadata[key].decode(errors="replace") for key in (_DATASET_KEY, _TASK_KEY))
    return QuestionSet(dataset, task, tuple(questions))


def _check_task(question: Question, task: Task) -> None:
    if (task == "multiple_choice") != bool(question.options):
        got = f"{len(question.options)} options"
        raise UserError(f"question {question.question_id} does not fit its task", got=got, wanted=f"one of {task}")
    counts = all(one.isascii() and one.isdigit() and len(one) <= _MOST_DIGITS for one in question.answers)
    if task == "count" and not counts:
        raise UserError(
            f"answer of question {question.question_id}", got=f"{', '.join(question.answers):.100}",
            wanted=f"a whole number of at most {_MOST_DIGITS} digits",
        )  # fmt: skip
