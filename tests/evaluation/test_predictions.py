"""Prediction files are read under a named convention, refused under a wrong one, and read back as written."""

import json

import pytest

from mama_ray.data.questions.answers import AnswerList
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError
from mama_ray.evaluation.predictions import Numbering, read_predictions, write_predictions
from tests.data.questions.small_sets import choice_set, open_question, open_set

LIST = AnswerList(("man", "woman"), (2, 1))
FROM_0 = Numbering()
ASKED = open_set("man woman cat")
COUNTED = QuestionSet("tgif_count", "count", (open_question(0, "3"),))
BY_VIDEO = QuestionSet("nextqa_oe", "open_ended", (open_question(0, question_id="v0_4"),))


def read(value, form, questions, numbering=FROM_0):
    return read_predictions(json.dumps(value), form, questions, numbering, source="file.json")


def numbered(*predictions, answers=(None, None, None)):
    return {f"q{place}": {"prediction": one} | ({} if answer is None else {"answer": answer})
            for place, (one, answer) in enumerate(zip(predictions, answers, strict=True))}  # fmt: skip


def test_numbers_of_answers_are_read_as_hqga_and_as_transtr_count():
    wanted = [("q0", "man"), ("q1", "man"), ("q2", None)]
    hqga, transtr = Numbering(LIST, 1, 0), Numbering(LIST, 0, -1)
    assert read(numbered(1, 1, 0, answers=(1, 2, 0)), "answer_numbers", ASKED, hqga) == wanted
    assert read(numbered(0, 0, -1, answers=(0, 1, -1)), "answer_numbers", ASKED, transtr) == wanted


@pytest.mark.parametrize("numbering", [Numbering(LIST, 0, -1), Numbering(LIST, 1, -1), Numbering(LIST, 1, None)])
def test_a_wrong_convention_is_refused_by_the_answers_that_a_file_records(numbering):
    with pytest.raises(UserError, match=r"answers that file.json records are not the questions'|got number 0"):
        read(numbered(1, 1, 0, answers=(1, 2, 0)), "answer_numbers", ASKED, numbering)


def test_options_may_be_counted_from_1():
    questions = choice_set(0, 4)
    value = {"q0": {"prediction": 5, "answer": 1}, "q1": {"prediction": 5, "answer": 5}}
    assert read(value, "option_numbers", questions, Numbering(index_base=1)) == [("q0", 4), ("q1", 4)]
    with pytest.raises(UserError, match="q0 of file.json: got number 5, wanted 0 to 4"):
        read(value, "option_numbers", questions)


def test_causal_vidqas_numbered_parts_are_its_suffixes():
    value = {f"a_1_{number}": {"prediction": 0} for number in range(6)}
    found = [name for name, _ in read(value, "causal_vidqa", choice_set(0))]
    assert found == ["a_1_d", "a_1_e", "a_1_p", "a_1_pr", "a_1_c", "a_1_cr"]
    with pytest.raises(UserError, match="names a question in two ways"):
        read(value | {"a_1_d": {"prediction": 0}}, "causal_vidqa", choice_set(0))


@pytest.mark.parametrize(
    ("form", "questions", "predictions"),
    [
        ("answer_records", ASKED, {"q0": "man", "q1": "cat", "q2": None}),
        ("answers_by_video", BY_VIDEO, {"v0_4": "run away"}),
        ("counts", COUNTED, {"q0": 2.5}),
        ("option_numbers", choice_set(0, 4), {"q0": 3, "q1": 4}),
        ("answer_numbers", ASKED, {"q0": "man", "q1": "woman", "q2": None}),
    ],
)
def test_every_form_is_read_back_as_it_was_written(form, questions, predictions):
    numbering = Numbering(LIST)
    text = write_predictions(form, questions, predictions, numbering)
    assert dict(read_predictions(text, form, questions, numbering, source="x")) == predictions


def test_a_doubled_id_is_told_where_json_would_keep_the_last():
    text = '{"q0": {"prediction": 0}, "q0": {"prediction": 1}}'
    with pytest.raises(UserError, match="predictions of file.json have doubled ids: got 1, among them q0"):
        read_predictions(text, "option_numbers", choice_set(0), Numbering(), source="file.json")


@pytest.mark.parametrize(
    ("form", "value", "told"),
    [
        ("option_numbers", [], "no predictions of the form option_numbers: got file.json with a JSON list"),
        ("option_numbers", {"q0": 3}, "q0: 3, wanted {question_id: {prediction, answer}}"),
        ("option_numbers", {"q0": {"prediction": "3"}}, "prediction of q0 of file.json: got '3', wanted a number"),
        ("option_numbers", {"q0": {"prediction": 1.5}}, "got 1.5, wanted a number"),
        ("option_numbers", {"q0": {"prediction": True}}, "got True, wanted a number"),
        ("option_numbers", {"q0": {"prediction": float("nan")}}, "got nan, wanted a number"),
        ("option_numbers", {"q0": {"prediction": -1}}, "got number -1, wanted 0 to 4"),
        ("answer_numbers", {"q0": {"prediction": 0}}, "numbers for answers: wanted the list of answers"),
        ("answer_records", {}, "wanted \\[{question_id, answer}"),
        ("answer_records", [{"question_id": "q0"}], "no predictions of the form answer_records"),
        ("answer_records", [{"question_id": "q0", "answer": None}], "answer of q0 of file.json: got None"),
        ("answers_by_video", {"v": "run"}, "wanted {video: {qid: answer}}"),
        ("counts", {"q0": {"prediction": "3"}}, "got '3', wanted a number"),
    ],
)
def test_other_files_are_refused_in_one_line(form, value, told):
    questions = {"option_numbers": choice_set(0), "counts": COUNTED}.get(form, ASKED)
    with pytest.raises(UserError, match=told):
        read(value, form, questions)


def test_what_is_no_json_is_refused():
    with pytest.raises(UserError, match="predictions cannot be read: got file.json"):
        read_predictions(b"\xff", "counts", COUNTED, Numbering(), source="file.json")


def test_no_answer_is_written_as_null_and_read_back():
    questions = choice_set(0, 4)
    written = write_predictions("option_numbers", questions, {"q0": 1, "q1": None}, FROM_0)
    assert read(json.loads(written), "option_numbers", questions) == [("q0", 1), ("q1", None)]
    for count, number in ((None, None), ("3", 3), (2.5, 2.5)):  # an answer of a list is a text
        written = write_predictions("counts", COUNTED, {"q0": count}, FROM_0)
        assert read(json.loads(written), "counts", COUNTED) == [("q0", number)]


@pytest.mark.parametrize("form", ["option_numbers", "causal_vidqa", "answer_numbers", "answer_records"])
def test_a_form_of_another_task_is_refused(form):
    with pytest.raises(UserError, match=f"the form {form} is of .* questions: got questions of tgif_count"):
        read(numbered(1, 1, 1), form, COUNTED, Numbering(LIST))


@pytest.mark.parametrize("prediction", [10**400, -(10**400), True, [1]])
@pytest.mark.parametrize(("form", "questions"), [("option_numbers", choice_set(0)), ("counts", COUNTED)])
def test_what_is_no_number_of_any_use_is_refused(prediction, form, questions):
    with pytest.raises(UserError, match="prediction of q0 of file.json: got "):
        read({"q0": {"prediction": prediction}}, form, questions)


@pytest.mark.parametrize("part", ["²", "1" * 5000, "6", ""])
def test_an_id_that_is_no_part_of_causal_vidqa_stays_as_it_is(part):
    found = read({f"v_{part}": {"prediction": 0}}, "causal_vidqa", choice_set(0))
    assert found == [(f"v_{part}", 0)]
