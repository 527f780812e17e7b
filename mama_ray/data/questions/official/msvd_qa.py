"""MSVD-QA: {train,val,test}_qa.json as published, or HQGA's CSV. Its splits are not those of MSVD's retrieval."""

from pathlib import Path

from mama_ray.data.questions.official.records import (
    Split,
    first_word,
    question_set,
    read_list,
    read_rows,
    require_split,
)
from mama_ray.data.questions.question import Question
from mama_ray.data.questions.table import QuestionSet, require_unique
from mama_ray.errors import UserError

SPLITS = {"train": range(1, 1201), "val": range(1201, 1451), "test": range(1451, 1971)}


def read_msvd_qa(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the questions. `beside` is youtube_mapping.txt: video_ids are then the names of MSVD's files.

    UserError where the videos are of another split, or one is not in the mapping.
    """
    if annotations.suffix == ".csv":
        rows = read_rows(annotations, ("video", "question", "answer", "qid"))
    else:
        rows = [record | {"video": record["video_id"], "qid": record["id"]} for record in read_list(annotations)]
    require_split(annotations, [int(row["video"]) for row in rows], split, SPLITS)
    names = _names(beside) if beside else {f"vid{row['video']}": f"vid{row['video']}" for row in rows}
    unknown = {f"vid{row['video']}" for row in rows} - set(names)
    if beside and unknown:
        raise UserError(f"{len(unknown)} videos are not in {beside.name}", got=", ".join(sorted(unknown)[:3]))

    def make(row: dict) -> Question:
        return Question(
            question_id=str(row["qid"]),
            video_id=names[f"vid{row['video']}"],
            question=row["question"],
            answers=(row["answer"],),
            type=first_word(row["question"]),
            split=split,
        )

    return question_set(annotations, "msvd_qa", "open_ended", rows, make)


def _names(mapping: Path) -> dict[str, str]:
    """Return the file's name of each vidN: lines of `<youtube id>_<start>_<end> vidN`."""
    pairs = [line.split() for line in mapping.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(len(pair) == 2 for pair in pairs):
        raise UserError(f"{mapping.name} is no mapping", wanted="youtube_mapping.txt: a name and vidN in each line")
    require_unique([number for _, number in pairs], f"videos of {mapping.name}")
    return {number: name for name, number in pairs}
