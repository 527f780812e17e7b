"""TGIF-QA's four tasks, tab-separated, and TGIF-QA-R's two with their distractors drawn anew (VGT's columns)."""

from functools import partial
from pathlib import Path

from mama_ray.data.questions.official.records import Split, numbered, question_set, read_rows
from mama_ray.data.questions.question import Question, choice
from mama_ray.data.questions.table import QuestionSet

_FRAME_TYPES = ("object", "number", "color", "location")
_OPTIONS = tuple(f"a{number}" for number in range(1, 6))  # named from a1, though `answer` counts from 0
_R_OPTIONS = tuple(f"a{number}" for number in range(5))


def read_choices(
    annotations: Path, beside: Path | None = None, split: Split = "test", *, dataset: str = "tgif_action"
) -> QuestionSet:
    """Return the questions of action or transition, five options each."""
    rows = read_rows(annotations, ("gif_name", "question", *_OPTIONS, "answer", "vid_id"), delimiter="\t")

    def make(row: dict) -> Question:
        options = [row[name] for name in _OPTIONS]
        return choice(
            options, row["answer"], question_id=row["vid_id"], video_id=row["gif_name"], question=row["question"],
            type=dataset.removeprefix("tgif_"), split=split,
        )  # fmt: skip

    return question_set(annotations, dataset, "multiple_choice", rows, make)


def read_frame(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the questions about one frame; their types are object, number, color and location."""
    rows = read_rows(annotations, ("gif_name", "question", "answer", "type", "vid_id"), delimiter="\t")

    def make(row: dict) -> Question:
        return Question(
            question_id=row["vid_id"], video_id=row["gif_name"], question=row["question"], answers=(row["answer"],),
            type=numbered(_FRAME_TYPES, row["type"], "type"), split=split,
        )  # fmt: skip

    return question_set(annotations, "tgif_frame", "open_ended", rows, make)


def read_count(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the questions about how often something is done; the answers are whole numbers."""
    rows = read_rows(annotations, ("gif_name", "question", "answer", "vid_id"), delimiter="\t")

    def make(row: dict) -> Question:
        return Question(
            question_id=row["vid_id"], video_id=row["gif_name"], question=row["question"], answers=(row["answer"],),
            type="count", split=split,
        )  # fmt: skip

    return question_set(annotations, "tgif_count", "count", rows, make)


def read_r(
    annotations: Path, beside: Path | None = None, split: Split = "test", *, dataset: str = "tgif_r_action"
) -> QuestionSet:
    """Return the questions of TGIF-QA-R: CSV with video_id, question, answer, qid, a0 to a4."""
    rows = read_rows(annotations, ("video_id", "question", "answer", "qid", *_R_OPTIONS))

    def make(row: dict) -> Question:
        options = [row[name] for name in _R_OPTIONS]
        return choice(
            options, row["answer"], question_id=f"{row['video_id']}_{row['qid']}", video_id=row["video_id"],
            question=row["question"], type=dataset.removeprefix("tgif_r_"), split=split,
        )  # fmt: skip

    return question_set(annotations, dataset, "multiple_choice", rows, make)


read_action = partial(read_choices, dataset="tgif_action")
read_transition = partial(read_choices, dataset="tgif_transition")
read_r_action = partial(read_r, dataset="tgif_r_action")
read_r_transition = partial(read_r, dataset="tgif_r_transition")
