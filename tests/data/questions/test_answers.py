"""Answer lists come from training questions alone, are the same everywhere, and say how far they reach."""

import json

import pytest

from mama_ray.data.questions.answers import answer_list_from_json, build_answer_list, ceiling_of
from mama_ray.errors import UserError
from tests.data.questions.official_sets import msrvtt_qa, msvd_qa, official
from tests.data.questions.small_sets import open_question, open_set


def test_answers_are_ordered_by_count_and_then_by_name():
    train = open_set("dog cat dog bird cat dog ant").questions
    answers = build_answer_list(train)
    assert (answers.answers, answers.counts, answers.num_questions) == (("dog", "cat", "ant", "bird"), (3, 2, 1, 1), 7)
    assert build_answer_list(train[::-1]) == answers
    assert build_answer_list(train, 2).answers == ("dog", "cat")
    assert build_answer_list(train, min_count=2).answers == ("dog", "cat")


def test_a_list_refuses_questions_that_are_not_of_train():
    with pytest.raises(UserError, match="question q0 of split test for the list of answers"):
        build_answer_list(open_set("dog", split="test").questions)
    with pytest.raises(UserError, match="no answers for a list"):
        build_answer_list([])


def test_a_question_with_two_right_answers_has_the_one_that_is_listed():
    answers = build_answer_list(open_set("dog cat").questions)
    two = open_question(1, answers=("wolf", "cat"))
    assert answers.number_of(two) == answers.numbers["cat"]
    assert answers.number_of(open_question(2, "wolf")) == -1
    ceiling = ceiling_of(answers, [two, open_question(2, "wolf")])
    assert (ceiling.num_listed, ceiling.num_questions, ceiling.percent) == (1, 2, 50.0)


def test_a_list_survives_the_round_trip_and_a_published_one_is_read():
    answers = build_answer_list(open_set("dog cat dog").questions)
    assert answer_list_from_json(answers.to_json(), "x") == answers
    assert answer_list_from_json('["dog", "cat"]', "x").answers == answers.answers
    assert answer_list_from_json('["dog", "cat"]', "x").sha256 == answers.sha256


@pytest.mark.parametrize(
    "text", ["", "{", "3", '{"words": []}', "[]", '["a", "a"]', '["a", 1]', '{"answers": ["a"], "counts": []}']
)
def test_what_is_no_list_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="list of answers"):
        answer_list_from_json(text, "file.json")


@pytest.mark.parametrize(("size", "listed", "percent"), [(1000, 65_654, 90.16), (4000, 70_452, 96.75)])
def test_msrvtt_qa_has_the_documented_ceilings(size, listed, percent):
    words = answer_list_from_json(official("msrvtt_qa/ans_word.json").read_bytes(), "ans_word.json").answers
    top = answer_list_from_json(json.dumps(words[:size]), "x")
    ceiling = ceiling_of(top, msrvtt_qa().questions)
    assert (ceiling.num_listed, ceiling.num_questions) == (listed, 72_821)
    assert ceiling.percent == pytest.approx(percent, abs=0.005)


@pytest.mark.parametrize(("size", "listed", "percent"), [(1000, 11_983, 91.08), (1852, 12_378, 94.08)])
def test_msvd_qa_has_the_documented_ceilings(size, listed, percent):
    words = answer_list_from_json(official("msvd_qa/hqga_ans_word.json").read_bytes(), "ans_word.json").answers
    top = answer_list_from_json(json.dumps(words[:size]), "x")
    ceiling = ceiling_of(top, msvd_qa().questions)
    assert (ceiling.num_listed, ceiling.num_questions, round(ceiling.percent, 2)) == (listed, 13_157, percent)


@pytest.mark.parametrize("text", ['["\\ud800"]', '{"answers": ["a"], "counts": [1], "num_questions": "1"}'])
def test_a_list_of_broken_texts_or_counts_is_refused(text):
    with pytest.raises(UserError, match="of a list"):
        answer_list_from_json(text, "answers.json")
