"""Questions find their clips by video or by clip, and what finds none is told."""

import json

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.data.questions.own import questions_of_index, read_own
from mama_ray.data.questions.table import QuestionSet
from mama_ray.data.questions.videos import count_split_videos, join_clips, video_rows
from mama_ray.errors import UserError
from tests.data.questions.small_sets import open_question, open_set


def index_of(*names: str, **columns) -> pa.Table:
    """An index of clips named `video_id` or `clip_id:video_id`."""
    pairs = [(name.partition(":")[0], name.partition(":")[2] or name) for name in names]
    clip_ids, video_ids = zip(*pairs, strict=True)
    return pa.table({"clip_id": clip_ids, "video_id": video_ids, **columns})


def asked_about(*video_ids: str, **fields) -> QuestionSet:
    questions = [open_question(place, video_id=name, **fields) for place, name in enumerate(video_ids)]
    return QuestionSet("small", "open_ended", tuple(questions))


def test_questions_are_sorted_by_the_rows_of_their_clips():
    asked = join_clips(asked_about("c", "a", "c", "x", "a"), index_of("a", "b", "c"))
    assert [question.question_id for question in asked.questions] == ["q1", "q4", "q0", "q2"]
    assert np.array_equal(asked.rows, [0, 0, 2, 2])
    assert [question.question_id for question in asked.missing] == ["q3"]


def test_a_path_before_a_videos_name_is_no_part_of_it():
    assert join_clips(asked_about("v1"), index_of("v0", "part/v1")).rows.tolist() == [1]


def test_a_question_may_name_one_of_a_videos_clips_and_else_must_not_be_about_several():
    index = index_of("v_0:v", "v_1:v")
    assert join_clips(asked_about("v", clip_id="v_1"), index).rows.tolist() == [1]
    with pytest.raises(UserError, match="question q0 names a video of several clips: got 2 clips of v"):
        join_clips(asked_about("v"), index)


def test_questions_of_no_clip_at_all_are_told():
    with pytest.raises(UserError, match="no question of small is about a clip .*: got question q0 of video x"):
        join_clips(asked_about("x"), index_of("a"))


def test_videos_of_two_splits_are_counted():
    questions = (
        open_question(0, split="train"),
        open_question(1, split="test", video_id="v0"),
        open_question(2, split="test"),
    )
    assert count_split_videos(QuestionSet("s", "open_ended", questions)) == {("test", "train"): 1}


def test_a_videos_row_comes_once_and_outside_the_map_is_told():
    questions = asked_about("a", "b", "a", split="test")
    assert [row["video"] for row in video_rows(questions, {"a": "01/a", "b": "02/b"})] == ["01/a.mp4", "02/b.mp4"]
    with pytest.raises(UserError, match="1 videos are in no folder of the map: got b"):
        video_rows(questions, {"a": "01/a"})


def test_an_indexs_own_questions_are_named_after_their_clips():
    records = [
        [{"question": "who?", "answer": "man"}, {"question": "what?", "answer": "dog", "question_id": "x"}],
        None,
    ]
    index = index_of("c0:v0", "c1:v1", split=["train", "val"],
                     questions=[json.dumps(own) if own else None for own in records])  # fmt: skip
    questions = questions_of_index(index)
    assert [question.question_id for question in questions.questions] == ["c0_0", "x"]
    assert questions.questions[0].split == "train"
    assert join_clips(questions, index).rows.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (None, "no questions in the index"),
        ([{"question": "", "answer": "man"}], "question 1 of clip c0: got question: got ''"),
        ([{"question": "who?", "answer": 5, "options": ["a", "b"]}], "question 1 of clip c0: got answer: got option 5"),
        (["who?"], "question 1 of clip c0: got question: got str"),
    ],
)
def test_a_broken_question_of_an_index_is_told_by_its_clip(records, told):
    with pytest.raises(UserError, match=told):
        questions_of_index(index_of("c0", split=["train"], questions=[json.dumps(records) if records else None]))


def test_questions_of_ones_own_are_read_from_json_and_refused_by_their_number(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps([question.to_dict() for question in open_set("man dog").questions]))
    assert read_own(path, split="train").questions == open_set("man dog", split="train").questions
    path.write_text(json.dumps([{"question_id": "a", "video_id": "v", "question": "?", "answer": None}]))
    with pytest.raises(UserError, match="question 1 of own.json: got answer: got none"):
        read_own(path)
