"""MSRVTT-QA: {train,val,test}_qa.json as published, HQGA's CSV or EMCL's JSON lines."""

import logging
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
from mama_ray.data.questions.table import QuestionSet

logger = logging.getLogger(__name__)

SPLITS = {"train": range(6513), "val": range(6513, 7010), "test": range(7010, 10_000)}


def read_msrvtt_qa(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the questions; a question's type is its first word. UserError where the videos are of another split."""
    rows = _rows(annotations)
    require_split(annotations, [int(str(row["video"]).removeprefix("video")) for row in rows], split, SPLITS)

    def make(row: dict) -> Question:
        return Question(
            question_id=str(row["qid"]),
            video_id=f"video{str(row['video']).removeprefix('video')}",
            question=row["question"],
            answers=(row["answer"],),
            type=first_word(row["question"]),
            split=split,
        )

    return question_set(annotations, "msrvtt_qa", "open_ended", rows, make)


def _rows(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        rows = read_rows(path, ("video", "question", "answer", "qid"))
        if rows and "type" in rows[0]:
            # HQGA's, of which a score by type would be one by topic.
            logger.warning(
                "column type of %s is the video's category (0 to 19), not the question's type: not used", path.name
            )
        return rows
    records, rows, counts = read_list(path), [], {}
    for record in records:
        video = record.get("video_id")
        counts[video] = counts.get(video, -1) + 1  # EMCL's lines have no ids of their own
        rows.append(record | {"video": video, "qid": record.get("id", f"{video}_{counts[video]}")})
    return rows
