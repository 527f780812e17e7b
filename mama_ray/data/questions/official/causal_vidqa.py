"""Causal-VidQA: a folder per video with text.json and answer.json, six questions of five options each.

Prediction and counterfactual ask twice, for the answer and for its reason: types p and pr, c and cr, which count as
right together alone. The official lists of a split's videos are pickles, which are never opened here: give the ids as
text, one in a line, or as a JSON list.
"""

import json
from pathlib import Path

from mama_ray.data.questions.official.records import Split, question_set, read_list, read_object
from mama_ray.data.questions.question import Question, choice
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError

_NUM_OPTIONS = 5
# Suffix of a question in prediction files: which question it is, and whether its answer or its reason is asked for.
PARTS = {
    "d": ("descriptive", "answer"),
    "e": ("explanatory", "answer"),
    "p": ("predictive", "answer"),
    "pr": ("predictive", "reason"),
    "c": ("counterfactual", "answer"),
    "cr": ("counterfactual", "reason"),
}


def read_causal_vidqa(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the questions of the videos of one split. `annotations` is the folder QA, `beside` the split's video ids.

    A question is `<video>_<suffix>`, as in prediction files. UserError where a video has no folder or lacks a part.
    """
    if beside is None:
        raise UserError("Causal-VidQA's folder holds all splits", wanted="--beside, a file of the split's video ids")
    if beside.suffix == ".pkl":
        remedy = "write its ids as text, one in a line"
        raise UserError("a pickle is never opened: it may run code", got=beside.name, remedy=remedy)
    video_ids = read_list(beside) if beside.suffix == ".json" else beside.read_text(encoding="utf-8").split()
    records = [(str(video_id), suffix, *_of_video(annotations / str(video_id), suffix))
               for video_id in video_ids for suffix in PARTS]  # fmt: skip

    def make(record: tuple) -> Question:
        video_id, suffix, question, options, right = record
        if len(options) != _NUM_OPTIONS:
            raise ValueError(f"options of {video_id}_{suffix}: got {len(options)}, wanted {_NUM_OPTIONS}")
        return choice(
            options, right, question_id=f"{video_id}_{suffix}", video_id=video_id, question=question, type=suffix,
            split=split,
        )  # fmt: skip

    return question_set(annotations, "causal_vidqa", "multiple_choice", records, make)


def _of_video(folder: Path, suffix: str) -> tuple[str, list[str], int]:
    """Return question, options and the right one's number."""
    kind, part = PARTS[suffix]
    try:
        text, answer = read_object(folder / "text.json"), read_object(folder / "answer.json")
        options, right = text[kind][part], answer[kind][part]
        if not isinstance(options, list):
            raise TypeError(f"{kind} {part} is no list")
        return text[kind]["question"], options, right
    except FileNotFoundError as error:
        raise UserError(
            "a video of Causal-VidQA has no questions", got=folder, wanted="text.json and answer.json in it"
        ) from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"questions of {folder.name} lack a part", got=f"{error}", wanted=f"{kind} {part}") from None
