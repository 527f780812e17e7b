"""Batches of pairs: one clip for all its questions, through padding, tensors and micro-batches."""

import numpy as np
import pyarrow as pa
import torch

from mama_ray.data.batch import ClipBatch, pad_batch, to_clip_batch
from mama_ray.data.questions.answers import AnswerList
from mama_ray.data.questions.assemble import DecodedClips, QuestionAssembler, count_listed, pairs_table
from mama_ray.data.questions.question import Question, choice
from mama_ray.data.questions.table import QuestionSet
from mama_ray.data.questions.videos import join_clips
from mama_ray.weighting.features import split_batch

CLIPS = pa.table({"clip_id": ["a", "b", "c"], "video_id": ["a", "b", "c"]})
QUESTIONS = [
    ("b", "what?", "red"),
    ("a", "how?", "two"),
    ("b", "why?", "odd"),
    ("a", "who?", "red"),
    ("c", "when?", "two"),
]
ANSWERS = AnswerList(("red", "two"), (2, 2))


class CountingClips(DecodedClips):
    """Clips whose frames are their row's number, and what was asked for."""

    def __init__(self) -> None:
        rows = np.arange(3)
        frames = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None, None], (3, 2, 4, 4, 3))
        arrays = {"frames": frames, "token_ids": rows[:, None] + 10, "rows": rows, "valid": rows != 2}
        super().__init__(arrays)
        object.__setattr__(self, "asked_for", [])

    def assemble(self, rows, epochs=None):
        self.asked_for.append((list(rows), None if epochs is None else list(epochs)))
        return super().assemble(rows, epochs)


def assembler(clips: CountingClips) -> QuestionAssembler:
    questions = tuple(
        Question(question_id=str(number), video_id=video, question=text, answers=(answer,))
        for number, (video, text, answer) in enumerate(QUESTIONS)
    )
    pairs = pairs_table(join_clips(QuestionSet("own", "open_ended", questions), CLIPS), ANSWERS)
    assert count_listed(pairs) == 4
    return QuestionAssembler(clips, pairs, lambda texts, options: {"token_ids": np.array([[len(t)] for t in texts])})


def test_a_clip_is_assembled_once_for_its_questions():
    clips = CountingClips()
    arrays = assembler(clips).assemble(np.array([2, 3, 0, 1, -1]), np.full(5, 7))
    assert clips.asked_for == [([1, 0], [7, 7])]
    assert arrays["clips"].tolist() == [1, 1, 0, 0] and arrays["rows"].tolist() == [2, 3, 0, 1]
    assert arrays["token_ids"][:, 0].tolist() == [11, 11, 10, 10]
    assert arrays["target/answer"].tolist() == [0, -1, 1, 0]
    assert arrays["question/token_ids"][:, 0].tolist() == [5, 4, 4, 4]
    assert {len(values) for values in arrays.values()} == {4}  # a block of Ray Data has one length


def batch_of(pairs: list[int], size: int) -> ClipBatch:
    return to_clip_batch(pad_batch(assembler(CountingClips()).assemble(np.array(pairs)), size))


def test_frames_of_a_batch_are_there_once_and_repeat_for_the_questions():
    batch = batch_of([2, 3, 0, 1, 4], 8)
    assert len(batch) == 8 and len(batch.frames) == 3
    assert batch.places.tolist() == [0, 0, 1, 1, 2, 2, 2, 2]  # padding costs no clip
    assert batch.for_questions(batch.frames)[:, 0, 0, 0, 0].tolist() == [1, 1, 0, 0, 2, 2, 2, 2]
    assert batch.valid.tolist() == [True] * 4 + [False] * 4 and batch.clips.tolist() == [1, 1, 0, 0, 2, -1, -1, -1]


def test_parts_of_a_batch_have_the_frames_of_their_pairs():
    batch = batch_of([2, 3, 0, 1, 4], 8)
    whole = batch.for_questions(batch.frames)
    for num_parts in (2, 3, 8):
        parts = split_batch(batch, num_parts)
        assert torch.equal(torch.cat([part.for_questions(part.frames) for part in parts]), whole)
        assert all(len(part.frames) == len(part.places.unique()) for part in parts)


def test_a_batch_of_padding_alone_has_one_black_clip():
    batch = batch_of([], 2)
    assert len(batch.frames) == 1 and not batch.frames.any() and batch.places.tolist() == [0, 0]
    assert not batch.valid.any()


def test_options_are_chosen_from_by_their_number():
    asked = choice(("x", "y"), 1, question_id="0", video_id="b", question="which?")
    pairs = pairs_table(join_clips(QuestionSet("own", "multiple_choice", (asked,)), CLIPS), None)
    assert pairs["answer"].to_pylist() == [1] and pairs["options"].to_pylist() == [["x", "y"]]
