"""The contract of a question: what is read back as it was written, and each way to break it told by its field."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.questions.question import parse_question
from mama_ray.data.questions.table import QuestionSet, join_sets, read_questions, write_questions
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from tests.data.questions.small_sets import choice_question, choice_set, open_question, open_set

OPEN = {"question_id": "q1", "video_id": "v1", "question": "who sings?", "answer": "man"}
CHOICE = OPEN | {"options": ["a", "b", "c"], "answer": 1}


def test_the_right_option_goes_by_number_or_by_text():
    by_number, by_text = parse_question(CHOICE), parse_question(CHOICE | {"answer": "b"})
    assert by_number == by_text
    assert (by_number.right_option, by_number.answers, by_number.task) == (1, ("b",), "multiple_choice")


def test_an_id_may_be_0():
    question = parse_question(OPEN | {"question_id": 0, "video_id": 0}, question_id="c_0", video_id="c")
    assert (question.question_id, question.video_id) == ("0", "0")


def test_the_answer_of_a_choice_is_its_right_option():
    with pytest.raises(ValueError, match="answer: got 'man', wanted the right option's text, 'option 0'"):
        replace(choice_question(1), answers=("man",))


def test_two_options_of_one_text_are_told_apart_by_number():
    assert parse_question(CHOICE | {"options": ["a", "a"], "answer": 1}).right_option == 1


@pytest.mark.parametrize(
    "record",
    [OPEN, OPEN | {"answer": 3}, CHOICE, OPEN | {"answer": None, "answers": ["man", "guy"]}, OPEN | {"split": "dev"}],
)
def test_a_question_is_read_back_as_it_was_written(record):
    question = parse_question(record)
    assert parse_question(question.to_dict()) == question


def test_what_a_place_knows_fills_what_a_question_does_not_say():
    record = {"question": "who?", "answer": "man"}
    question = parse_question(record, question_id="c_0", video_id="v", clip_id="c", split="val")
    assert (question.question_id, question.video_id, question.clip_id, question.split) == ("c_0", "v", "c", "val")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"question": " "}, "question: got ' '"),
        ({"question": None}, "question: got ''"),
        ({"answer": None}, "answer: got none"),
        ({"answer": "\ud800"}, "lone surrogate"),
        ({"type": "\ud800"}, "type: got a lone surrogate"),
        ({"clip_id": "\ud800"}, "clip_id: got a lone surrogate"),
        ({"split": 3}, "split: got 3"),
        ({"answers": ["man"]}, "both answer and answers"),
        ({"answer": 1.5}, "answer: got 1.5"),
        ({"question_id": None}, "question_id: got ''"),
        ({"typ": "who"}, "unknown field 'typ'"),
        ({"split": "dev2"}, "split: got 'dev2'"),
        ({"options": ["a"]}, "which is 0 of the options"),
        ({"options": ""}, "which is 0 of the options"),
        ({"options": {}}, "options: got {}"),
        ({"options": ["man"]}, "options: got 1, wanted at least 2"),
        ({"options": ["man", ""]}, "options: got ''"),
        ({"options": ["man", "man"]}, "which is 2 of the options"),
        ({"options": ["a", "b"], "answer": None}, "no right option"),
        ({"options": ["a", "b"], "answer": None, "answers": ["a", "b"]}, "2 right options, wanted one"),
        ({"options": ["a", "b"], "answer": 2}, "option 2, wanted a number from 0 to 1"),
        ({"options": ["a", "b"], "answer": -1}, "option -1"),
        ({"options": ["a", "b"], "answer": True}, "option True"),
    ],
)
def test_a_broken_question_is_told_by_its_field(changes, told):
    with pytest.raises(ValueError, match=told) as raised:
        parse_question(OPEN | changes)
    assert "\n" not in str(raised.value)


def test_a_table_keeps_a_set_as_it_was(tmp_path):
    questions = (choice_question(1, 3, type="why", split="test"), choice_question(2, clip_id="c2"))
    for written in (QuestionSet("set", "multiple_choice", questions), open_set("man woman man", split="train")):
        place = Place.of(tmp_path / "questions.parquet")
        write_questions(place, written)
        assert read_questions(place) == written


@pytest.mark.parametrize("content", [b"", b"no parquet", None])
def test_what_is_no_table_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "questions.parquet").write_bytes(content)
    with pytest.raises(UserError, match="questions"):
        read_questions(Place.of(tmp_path / "questions.parquet"))


def test_a_set_refuses_four_of_five_options_and_names_the_question():
    questions = (choice_question(1), choice_question(2), choice_question(3, num_options=4))
    with pytest.raises(UserError, match="question q3 of small: got 4 options, wanted 5, as 2 others have"):
        QuestionSet("small", "multiple_choice", questions)


@pytest.mark.parametrize(
    ("task", "questions", "told"),
    [
        ("open_ended", (open_question(1), open_question(1)), "doubled ids: got 1, among them q1"),
        ("open_ended", (choice_question(1),), "does not fit its task"),
        ("multiple_choice", (open_question(1),), "does not fit its task"),
        ("count", (open_question(1, "three"),), "answer of question q1: got three, wanted a whole number"),
        ("essay", (open_question(1),), "unknown task"),
    ],
)
def test_a_set_is_of_one_task_and_has_each_question_once(task, questions, told):
    with pytest.raises(UserError, match=told):
        QuestionSet("small", task, questions)


def test_splits_are_told_apart_and_a_split_without_questions_is_told():
    joined = join_sets([QuestionSet("s", "open_ended", (open_question(1, split="train"),)),
                        QuestionSet("s", "open_ended", (open_question(2, split="test"),))])  # fmt: skip
    assert [question.question_id for question in joined.of_split("test").questions] == ["q2"]
    with pytest.raises(UserError, match="no questions of split val in s: got 1 of train, 1 of test"):
        joined.of_split("val")
    with pytest.raises(UserError, match="cannot be one"):
        join_sets([joined, choice_set(0)])


def test_a_table_without_its_data_set_or_of_broken_text_is_refused(tmp_path):
    place = Place.of(tmp_path / "table.parquet")
    write_questions(place, open_set("man woman"))
    table = pq.read_table(place.path)
    version = {b"mama_ray.questions.version": b"1"}
    pq.write_table(table.replace_schema_metadata(version), place.path)
    with pytest.raises(UserError, match="not a questions table"):
        read_questions(place)
    offsets = pa.array([0, 1, 2], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(table.set_column(4, "type", broken), place.path)
    with pytest.raises(UserError, match="the questions cannot be read"):
        read_questions(place)
