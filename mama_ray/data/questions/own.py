"""Questions of one's own: JSON or JSON lines of the contract, or the cells `questions` of an annotation table.

A table's cells reach the index of the prepared shards, so those questions are read from there and need no other file.
"""

import json
from pathlib import Path

import pyarrow as pa

from mama_ray.data.questions.official.records import question_set, read_list
from mama_ray.data.questions.question import Question, Task, parse_question
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError

_COLUMNS = ("clip_id", "video_id", "split", "questions")


def read_own(path: Path, *, dataset: str = "own", task: Task | None = None, split: str | None = None) -> QuestionSet:
    """Return the questions of a file of the contract; each names its video_id. `split` is that of those that name none.

    task: None is what the questions look like. UserError names the first question that breaks the contract.
    """
    records = read_list(path)

    def make(record: dict) -> Question:
        return parse_question(record, split=split)

    questions = question_set(path, dataset, task or _task_of(records), records, make)
    return questions


def questions_of_index(index: pa.Table, *, dataset: str = "own", task: Task | None = None) -> QuestionSet:
    """Return the questions that an annotation table gave to its clips, in the order of the index.

    A question without a question_id is called after its clip and its place there. UserError where there is none, and
    for the first that breaks the contract.
    """
    questions, records = [], []
    for row in index.select(_COLUMNS).to_pylist():
        own = json.loads(row["questions"]) if row["questions"] else []
        records += own
        for number, record in enumerate(own):
            known = {name: row[name] for name in ("clip_id", "video_id", "split")}
            try:
                questions.append(parse_question(record, question_id=f"{row['clip_id']}_{number}", **known))
            except ValueError as error:
                raise UserError(f"question {number + 1} of clip {row['clip_id']}", got=f"{error}") from None
    if not questions:
        raise UserError(
            "no questions in the index of clips", remedy="add a column questions to the annotations, or name a table"
        )
    return QuestionSet(dataset, task or _task_of(records), tuple(questions))


def _task_of(records: list) -> Task:
    has_options = any(isinstance(record, dict) and record.get("options") for record in records)
    return "multiple_choice" if has_options else "open_ended"
