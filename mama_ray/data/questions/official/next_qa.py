"""NExT-QA: multiple choice (also in VGT's and CoVGT's columns) and open ended. A question is `<video>_<qid>`."""

from pathlib import Path

from mama_ray.data.questions.official.records import Split, question_set, read_object, read_rows
from mama_ray.data.questions.question import Question, choice
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError

_OPTIONS = tuple(f"a{number}" for number in range(5))


def read_nextqa(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the questions of multiple choice; `answer` is the option's number or, as in CoVGT's files, its text."""
    rows = _rows(annotations, _OPTIONS)
    has_numbers = all(row["answer"].isdigit() for row in rows)

    def make(row: dict) -> Question:
        options = [row[name] for name in _OPTIONS]
        if not has_numbers and options.count(row["answer"]) != 1:
            found = options.count(row["answer"])
            raise ValueError(f"answer: got {row['answer']!r}, which is {found} of the options, wanted exactly one")
        right = row["answer"] if has_numbers else options.index(row["answer"])
        return choice(
            options, right, question_id=f"{row['video']}_{row['qid']}", video_id=row["video"],
            question=row["question"], type=row["type"], split=split,
        )  # fmt: skip

    return question_set(annotations, "nextqa", "multiple_choice", rows, make)


def read_nextqa_oe(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the open-ended questions. `beside` is add_reference_answer_test.json: second answers that are right, too.

    UserError where it answers a question that is not there.
    """
    rows = _rows(annotations, ())
    references = read_object(beside) if beside else {}
    ids = {(row["video"], row["qid"]) for row in rows}
    foreign = [f"{video}_{qid}" for video, own in references.items() for qid in own if (video, qid) not in ids]
    if beside and foreign:
        raise UserError(
            f"{beside.name} answers other questions than {annotations.name}",
            got=f"{len(foreign)}, among them {', '.join(foreign[:3])}",
            remedy="give the file of the same split",
        )

    def make(row: dict) -> Question:
        reference = references.get(row["video"], {}).get(row["qid"])
        answers = [row["answer"].strip(), *([reference.strip()] if reference and reference.strip() else [])]
        return Question(
            question_id=f"{row['video']}_{row['qid']}", video_id=row["video"], question=row["question"],
            answers=tuple(dict.fromkeys(answers)), type=row["type"], split=split,
        )  # fmt: skip

    return question_set(annotations, "nextqa_oe", "open_ended", rows, make)


def _rows(path: Path, options: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows; copies of VGT and NExT-GQA say video_id for video."""
    rows = read_rows(path, ("question", "answer", "qid", "type", *options))
    if rows and not {"video", "video_id"} & set(rows[0]):
        raise UserError(f"{path.name} lacks columns", got=", ".join(rows[0]), wanted="video or video_id")
    return [row | {"video": row.get("video") or row["video_id"]} for row in rows]
