"""The videos that questions are about: as rows for jobs/prepare.py, held out for validation, and joined with clips."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mama_ray.data.questions.question import Question
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError

# How each data set's files end; --videos finds the ending that a file really has.
_ENDINGS = {"tgif": "gif", "msvd_qa": "avi"}


def video_rows(questions: QuestionSet, folders: Mapping[str, str] | None = None) -> list[dict]:
    """Return a row for jobs/prepare.py of each video, without captions, in the order of the questions.

    folders: `folder/video` by video, as NExT-QA's map has it; UserError where one is not in it.
    """
    ending = next((end for name, end in _ENDINGS.items() if questions.dataset.startswith(name)), "mp4")
    splits: dict[str, str | None] = {}
    for question in questions.questions:
        splits.setdefault(question.video_id, question.split)
    missing = [video_id for video_id in splits if folders is not None and video_id not in folders]
    if missing:
        raise UserError(f"{len(missing)} videos are in no folder of the map", got=", ".join(missing[:3]))
    return [
        {
            "video": f"{folders[video_id] if folders else video_id}.{ending}",
            "video_id": video_id,
            "captions": [],
            "split": split,
        }
        for video_id, split in splits.items()
    ]


def hold_out_videos(questions: QuestionSet, num_videos: int) -> QuestionSet:
    """Mark the training questions of some videos as val: the ones whose id hashes lowest, so that the choice is the
    same everywhere, and no video is both learned from and chosen by. Questions of other splits stay what they are.
    """
    names = {question.video_id for question in questions.questions if question.split in ("train", None)}
    if not names:
        splits = ", ".join(sorted({question.split or "none" for question in questions.questions}))
        raise UserError("no training questions to hold videos out of", got=f"split {splits}", wanted="split train")
    if not 0 < num_videos < len(names):
        raise UserError("videos to hold out", got=num_videos, wanted=f"1 to {len(names) - 1}")
    chosen = set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:num_videos])
    held = (
        replace(one, split="val") if one.video_id in chosen and one.split in ("train", None) else one
        for one in questions.questions
    )
    return QuestionSet(questions.dataset, questions.task, tuple(held))


@dataclass(frozen=True)
class AskedClips:
    """Questions tied to rows of an index of clips.

    Attributes:
        questions: those whose video is there, in the order of (row, place in the set): the rows of training pairs.
        rows: int64, the index row of each question's clip; ascending.
        missing: questions whose video is not there: not learned from, and wrong where they are measured.
    """

    questions: tuple[Question, ...]
    rows: np.ndarray
    missing: tuple[Question, ...]

    def __len__(self) -> int:
        return len(self.questions)


def join_clips(questions: QuestionSet, index: pa.Table) -> AskedClips:
    """Tie each question to its clip: by clip_id where it names one, else by video_id, of which a path may stand before.

    `index` has clip_id and video_id. Raises UserError where a video is several clips and a question names none of
    them, and where no question has its clip.
    """
    clip_rows = {clip_id: row for row, clip_id in enumerate(index["clip_id"].to_pylist())}
    video_rows: dict[str, list[int]] = defaultdict(list)
    video_ids = index["video_id"].to_pylist()
    whole = set(video_ids)
    for row, video_id in enumerate(video_ids):
        video_rows[video_id].append(row)
        name = video_id.rsplit("/", 1)[-1]
        if name not in whole:
            video_rows[name].append(row)
    tied, missing = [], []
    for question in questions.questions:
        row = clip_rows.get(question.clip_id) if question.clip_id else _only(question, video_rows)
        if row is None:
            missing.append(question)
        else:
            tied.append((row, question))
    if not tied:
        one = questions.questions[0]
        raise UserError(
            f"no question of {questions.dataset} is about a clip that is there",
            got=f"question {one.question_id} of video {one.video_id}, clips of {video_ids[0] if video_ids else 'none'}",
            wanted="the same video_ids in both",
        )
    tied.sort(key=lambda pair: pair[0])
    rows = np.array([row for row, _ in tied], np.int64)
    return AskedClips(tuple(question for _, question in tied), rows, tuple(missing))


def count_split_videos(questions: QuestionSet) -> Counter[tuple[str, str]]:
    """Return how many videos have questions of two splits, by the two: what is learned from would be measured on."""
    splits: dict[str, set[str]] = defaultdict(set)
    for question in questions.questions:
        splits[question.video_id].add(question.split or "")
    return Counter((one, other) for found in splits.values() for one in found for other in found if one < other)


def _only(question: Question, video_rows: Mapping[str, list[int]]) -> int | None:
    rows = video_rows.get(question.video_id, [])
    if len(rows) > 1:
        raise UserError(
            f"question {question.question_id} names a video of several clips",
            got=f"{len(rows)} clips of {question.video_id}", wanted="a clip_id in the question, or whole videos",
        )  # fmt: skip
    return rows[0] if rows else None
