"""Batches of (clip, question) pairs: a clip is read, decoded and transformed once for all its questions of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from mama_ray.data.batch import CLIPS, PADDING_ROW, QUESTION_PREFIX, TARGET_PREFIX
from mama_ray.data.questions.answers import UNLISTED, AnswerList
from mama_ray.data.questions.plan import group_pairs
from mama_ray.data.questions.question import Question
from mama_ray.data.questions.videos import AskedClips
from mama_ray.errors import UserError

ANSWER = "answer"  # the target: a number of the answer list or of an option, UNLISTED where the list does not hold it

PAIRS = pa.schema(
    [
        ("row", pa.int64()),
        ("question_id", pa.string()),
        ("type", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.int32()),
    ]
)
"""A table of pairs, sorted by `row`, the clip's in its table of clips."""

Ask = Callable[[Sequence[str], Sequence[Sequence[str]] | None], dict[str, np.ndarray]]
"""Questions, and the options of each where there are some, to the arrays that a model's `answer` reads."""


@runtime_checkable
class AssemblesClips(Protocol):
    """What makes the arrays of clips."""

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the arrays of some rows, axis 0 the clip, `frames` and `rows` among them."""


def pairs_table(asked: AskedClips, answers: AnswerList | None) -> pa.Table:
    """Return the pairs of questions tied to clips; without a list of answers, the options are what is chosen from."""
    columns = {
        "row": asked.rows,
        "question_id": [question.question_id for question in asked.questions],
        "type": [question.type for question in asked.questions],
        "question": [question.question for question in asked.questions],
        "options": [list(question.options) for question in asked.questions],
        "answer": [_answer_of(question, answers) for question in asked.questions],
    }
    return pa.table(columns, schema=PAIRS)


def _answer_of(question: Question, answers: AnswerList | None) -> int:
    if answers is not None:
        return answers.number_of(question)
    if question.right_option is None:
        raise UserError(
            f"question {question.question_id} has no options", wanted="a multiple choice, or a list of answers"
        )
    return question.right_option


@dataclass(frozen=True)
class DecodedClips:
    """Clips that were decoded before, in memory; `arrays` have those of `rows`, ascending."""

    arrays: dict[str, np.ndarray]

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the arrays of some of them, the same in every epoch."""
        places = np.searchsorted(self.arrays["rows"], rows)
        return {name: values[places] for name, values in self.arrays.items()}


@dataclass(frozen=True)
class QuestionAssembler:
    """Assembles batches of pairs; rows are those of `pairs`.

    Attributes:
        clips: of the clips' table.
        pairs: PAIRS, sorted by row.
        ask: what the model reads of a question.
    """

    clips: AssemblesClips
    pairs: pa.Table
    ask: Ask

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the clips' arrays, axis 0 the pair, with the questions' and the answers'.

        `frames` has each clip once, in the order of `clips`, and is filled up with black. Padding among the rows, which
        comes last, is left to `pad_batch`.
        """
        rows = np.asarray(rows, np.int64)
        is_pair = rows != PADDING_ROW
        rows = rows[is_pair]
        chosen = self.pairs.take(pa.array(rows))
        clip_rows, places = group_pairs(chosen["row"].to_numpy())
        if len(rows) and (np.diff(places) < 0).any():
            raise ValueError("pairs of one clip must stand side by side in a batch")
        of_clips = None
        if epochs is not None:  # a step is of one epoch, so all pairs of a clip see it alike
            firsts = np.unique(places, return_index=True)[1]
            of_clips = np.asarray(epochs)[is_pair][firsts]
        arrays = self.clips.assemble(clip_rows, of_clips)
        frames = arrays.pop("frames")
        filling = np.zeros((len(rows) - len(frames), *frames.shape[1:]), frames.dtype)
        options = chosen["options"].to_pylist()
        asked = self.ask(chosen["question"].to_pylist(), options if any(options) else None)
        return {
            "frames": np.concatenate([frames, filling]),
            **{name: values[places] for name, values in arrays.items()},
            "rows": rows,
            CLIPS: clip_rows[places],
            TARGET_PREFIX + ANSWER: chosen["answer"].to_numpy().astype(np.int64),
            **{QUESTION_PREFIX + name: values for name, values in asked.items()},
        }


def count_listed(pairs: pa.Table) -> int:
    """Return how many questions have an answer that the list holds."""
    return int((pairs["answer"].to_numpy() != UNLISTED).sum())
