"""Accuracy is over all questions, and what was left out never makes it better; the published numbers come out."""

import json

import numpy as np
import pytest

from mama_ray.data.questions.answers import AnswerList, answer_list_from_json
from mama_ray.data.questions.question import choice
from mama_ray.data.questions.table import QuestionSet
from mama_ray.errors import UserError
from mama_ray.evaluation.benchmarks import load_benchmark_file
from mama_ray.evaluation.predictions import Numbering, read_predictions, write_predictions
from mama_ray.evaluation.question_answering import AT_CHANCE, chance_warning, clipped_count, is_right, score
from mama_ray.evaluation.question_protocol import (
    QuestionBenchmark,
    QuestionResult,
    check_scores,
    measure,
    result_table,
)
from tests.data.questions.official_sets import msvd_qa, nextqa_val, official, tgif_count
from tests.data.questions.small_sets import choice_question, choice_set, open_question, open_set
from tests.test_layout import ROOT


def benchmark(name: str):
    return load_benchmark_file(ROOT / "configs" / "benchmark" / f"{name}.yaml")


def answered(questions: QuestionSet, *predictions) -> list:
    return list(zip([one.question_id for one in questions.questions], predictions, strict=True))


def test_nextqas_published_model_has_its_published_numbers():
    text = official("nextqa_mc/HGA-bert-ft-h256-val.json").read_bytes()
    predictions = read_predictions(text, "option_numbers", nextqa_val(), Numbering(), source="HGA")
    result = measure(benchmark("nextqa_val"), nextqa_val(), predictions, source="HGA")
    wanted = {
        "accuracy/why": 46.99, "accuracy/how": 44.22, "accuracy/before_after": 49.53, "accuracy/when": 52.49,
        "accuracy/counting": 44.07, "accuracy/location": 72.54, "accuracy/others": 55.41, "accuracy/causal": 46.26,
        "accuracy/temporal": 50.74, "accuracy/descriptive": 59.33, "accuracy": 49.74,
    }  # fmt: skip
    assert {name: round(result.metrics[name], 2) for name in wanted} == wanted
    assert (result.protocol.deviation, result.warning) == ("", None)
    written = write_predictions("option_numbers", nextqa_val(), dict(predictions), Numbering())
    assert json.loads(written) == json.loads(text)


def test_msvd_qas_published_model_has_its_published_number_over_all_questions():
    answers = answer_list_from_json(official("msvd_qa/hqga_ans_word.json").read_bytes(), "ans_word.json")
    text = official("msvd_qa/HQGA_test_pred.json").read_bytes()
    numbering = Numbering(answers, 1, 0)
    predictions = read_predictions(text, "answer_numbers", msvd_qa(), numbering, source="HQGA")
    result = measure(benchmark("msvd_qa"), msvd_qa(), predictions, source="HQGA", answers=answers)
    assert result.metrics["accuracy"] == pytest.approx(41.14919814547, abs=1e-11)
    assert result.counts["all"].num_questions == 13_157
    assert result.protocol.ceiling == pytest.approx(94.08, abs=0.005)
    assert QuestionResult.from_json(result.to_json()) == result
    assert "1852 answers, ceiling 94.08 %" in result_table(result)
    assert json.loads(write_predictions("answer_numbers", msvd_qa(), dict(predictions), numbering)) == json.loads(text)


def test_causal_vidqas_published_model_has_all_nine_published_numbers():
    text = official("causal_vidqa/5-12_at_2.26_14.21.6.json").read_bytes()
    # The questions are not beside this checkout: the file records each right option by the question's name.
    questions = QuestionSet("causal_vidqa", "multiple_choice", tuple(
        choice(list("abcde"), record["answer"], question_id=name, question="?", video_id=name.rpartition("_")[0],
               type=name.rpartition("_")[2])
        for name, record in json.loads(text).items()
    ))  # fmt: skip
    predictions = read_predictions(text, "causal_vidqa", questions, Numbering(), source="TranSTR")
    result = measure(benchmark("causal_vidqa"), questions, predictions, source="TranSTR")
    wanted = {"D": 73.64, "E": 75.83, "p": 65.11, "pr": 65.00, "c": 68.59, "cr": 65.26, "P": 48.94, "C": 50.32}
    assert {name: round(result.metrics[f"accuracy/{name}"], 2) for name in wanted} == wanted
    assert (round(result.metrics["accuracy"], 2), result.protocol.deviation) == (62.18, "")


@pytest.mark.parametrize("constant", [2.9302, 3])
def test_one_count_for_all_has_the_documented_error_and_has_learned_nothing(constant):
    predictions = answered(tgif_count(), *[constant] * len(tgif_count()))
    result = measure(benchmark("tgif_count"), tgif_count(), predictions, source="constant")
    assert round(result.metrics["mean_squared_error"], 2) == 6.92
    assert round(result.metrics["mean_squared_error_from_1"], 2) == 5.63
    assert AT_CHANCE in result.warning


def test_activitynet_qas_free_is_that_of_its_six_types_in_whatever_order_they_come():
    kinds = ["object", "yes_no", "motion", "color", "spatial", "other", "temporal", "location", "number"]
    questions = [open_question(number, type=kind) for number, kind in enumerate(kinds * 4)]
    asked = QuestionSet("activitynet_qa", "open_ended", tuple(questions))
    is_free = [one.type not in ("motion", "spatial", "temporal") for one in questions]
    # Right are all of one free type, and all that is not free. The official denominator would be that of the types that
    # come fourth and later here, of which two are not free.
    predictions = [
        "man" if one.type == "color" or not free else "cat" for one, free in zip(questions, is_free, strict=True)
    ]
    result = measure(benchmark("activitynet_qa"), asked, answered(asked, *predictions), source="x")
    assert (result.counts["free"].num_right, result.counts["free"].num_questions) == (4, 24)
    assert result.metrics["accuracy/free"] == pytest.approx(100 * 4 / 24)
    assert result.metrics["accuracy"] == pytest.approx(100 * 16 / 36)
    assert result.protocol.name == "activitynet_qa (36 of 8,000 questions)"


def test_a_groups_accuracy_is_by_questions_and_equals_a_loop():
    rng = np.random.default_rng(0)
    rights, kinds, chosen = rng.integers(0, 5, 200), rng.choice(list("aabc"), 200), rng.integers(0, 5, 200)
    questions = choice_set(*map(int, rights), types="".join(kinds))
    scores = score(questions, answered(questions, *map(int, chosen)), groups={"ab": ["a", "b"], "none": ["z"]})
    is_right = [right == one for right, one in zip(rights, chosen, strict=True)]
    of_group = [hit for hit, kind in zip(is_right, kinds, strict=True) if kind in "ab"]
    assert scores.headline == pytest.approx(100 * sum(is_right) / 200)
    assert scores.groups["ab"].accuracy == pytest.approx(100 * sum(of_group) / len(of_group))
    assert set(scores.types) == {"a", "b", "c"}
    assert "none" not in scores.groups


def test_joint_items_are_right_when_all_their_questions_are():
    kinds = ("p", "pr")
    questions = QuestionSet("x", "multiple_choice", tuple(
        choice_question(2 * video + place, 1, video_id=f"v{video}", type=kind)
        for video in range(4) for place, kind in enumerate(kinds)
    ))  # fmt: skip
    scores = score(questions, answered(questions, 1, 1, 1, 0, 0, 1, 0, 0), joint={"P": kinds}, headline=("P", "p"))
    assert (scores.joint["P"].num_right, scores.joint["P"].num_questions) == (1, 4)
    assert scores.headline == pytest.approx((25.0 + 50.0) / 2)
    with pytest.raises(UserError, match="P counts answers that are right together: got video v3"):
        score(QuestionSet("x", "multiple_choice", questions.questions[:-1]), answered(questions, *[1] * 8)[:-1],
              joint={"P": kinds})  # fmt: skip
    with pytest.raises(UserError, match="no score of that name: got Q"):
        score(questions, answered(questions, *[1] * 8), headline=("Q",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found[:-1], "1 questions have no prediction: got 2 predictions for 3 questions, q2"),
        (lambda found: [*found, ("q1", "man")], "predictions have doubled ids: got 1, among them q1"),
        (lambda found: [*found, ("q9", "man")], "1 predictions are of questions that the set has not"),
        (lambda found: [*found[:-1], ("q9", "man")], "1 predictions are of questions that the set has not"),
    ],
)
def test_a_dropped_doubled_or_foreign_question_is_an_error_and_never_a_better_score(change, told):
    questions = open_set("man woman cat")
    found = answered(questions, "man", "man", "man")
    assert score(questions, found).headline == pytest.approx(100 / 3)
    with pytest.raises(UserError, match=told):
        score(questions, change(found))


@pytest.mark.parametrize("prediction", ["Man", " man", "men", "a man", None, 0])
def test_an_answer_is_right_when_it_is_exactly_equal(prediction):
    questions = QuestionSet("x", "open_ended", (open_question(0, answers=("man", "guy")),))
    assert score(questions, [("q0", prediction)]).headline == 0
    assert score(questions, [("q0", "guy")]).headline == 100


@pytest.mark.parametrize("prediction", [True, "1", None, 0])
def test_an_option_is_right_by_its_number_alone(prediction):
    questions = choice_set(1)
    assert score(questions, [("q0", prediction)]).headline == 0
    assert score(questions, [("q0", 1)]).headline == 100


def test_counts_are_rounded_and_clipped():
    assert [clipped_count(value) for value in (0.2, -3, 1.5, 2.49, 10.6, 99, 4)] == [1, 1, 2, 2, 10, 10, 4]
    for value in (None, "many", float("nan"), True):
        with pytest.raises(UserError, match="a predicted count"):
            clipped_count(value)


def test_an_evaluation_at_chance_says_so():
    rng = np.random.default_rng(3)
    questions = choice_set(*map(int, rng.integers(0, 5, 400)))
    guessed = answered(questions, *map(int, rng.integers(0, 5, 400)))
    assert AT_CHANCE in chance_warning(questions, guessed, score(questions, guessed))
    good = answered(questions, *[one.right_option if place % 2 else 0 for place, one in enumerate(questions.questions)])
    assert chance_warning(questions, good, score(questions, good)) is None
    asked = open_set("man man man woman " * 20)
    same = answered(asked, *["man"] * 80)
    assert "all 80 answers are 'man'" in chance_warning(asked, same, score(asked, same))
    unlisted = answered(asked, *["x", "y"] * 40)
    assert "at chance (1.00 %)" in chance_warning(asked, unlisted, score(asked, unlisted), num_answers=100)


def test_a_benchmark_refuses_questions_of_another_task():
    with pytest.raises(UserError, match="the benchmark nextqa is multiple_choice: got questions of small"):
        measure(benchmark("nextqa"), open_set("man"), [("q0", "man")], source="x")


@pytest.mark.parametrize("taken", ["all", "causal"])
def test_a_type_with_the_name_of_another_score_is_refused(taken):
    questions = QuestionSet("own", "open_ended", (open_question(0, type=taken), open_question(1, type="why")))
    with pytest.raises(
        UserError, match=f"a type of questions has the name of another score: got 1, among them {taken}"
    ):
        score(questions, [("q0", "man"), ("q1", "cat")], groups={"causal": ("why",)})


@pytest.mark.parametrize(
    "scores",
    [{"groups": {"all": ("a",)}}, {"groups": {"g": ("a", "a", "b")}}, {"joint": {"j": ()}}, {"headline": ("a", "a")}],
)
def test_a_score_that_counts_a_type_twice_or_none_is_refused(scores):
    fields = {"family": "question_answering", "dataset": "own", "task": "open_ended", "predictions": "answer_records"}
    with pytest.raises(ValueError, match="wanted at least one, each once|the name of the score of all"):
        QuestionBenchmark(**fields | scores)


def own_benchmark(**fields) -> QuestionBenchmark:
    usual = {"family": "question_answering", "dataset": "own", "task": "open_ended", "predictions": "answer_records"}
    return QuestionBenchmark(**usual | fields)


@pytest.mark.parametrize(
    ("task", "form"), [("count", "answer_records"), ("open_ended", "counts"), ("open_ended", "option_numbers")]
)
def test_predictions_are_of_the_benchmarks_task(task, form):
    with pytest.raises(ValueError, match=rf"predictions: {form} is of .* questions, wanted of {task}: "):
        own_benchmark(task=task, predictions=form)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"groups": {"g": ("why", "hwo")}}, "unknown type of questions in g of own: got hwo.*did you mean how"),
        ({"joint": {"j": ("why", "who")}}, "unknown type of questions in j of own: got who"),
        ({"headline": ("g",)}, "no score of that name: got g, wanted how, why"),
        ({"joint": {"j": ("why", "how")}}, "j counts answers that are right together"),
    ],
)
def test_scores_that_the_questions_have_not_are_told_before_they_are_answered(scores, told):
    questions = QuestionSet("own", "open_ended", (open_question(0, type="why"), open_question(1, type="how")))
    with pytest.raises(UserError, match=told):
        check_scores(own_benchmark(**scores), questions, None)
    check_scores(own_benchmark(groups={"g": ("why", "how")}, headline=("g", "why")), questions, None)


def test_a_part_of_a_benchmark_may_lack_a_type():
    questions = QuestionSet("own", "open_ended", (open_question(0, type="why"),))
    check_scores(own_benchmark(groups={"g": ("why", "how"), "h": ("how",)}, num_questions=9), questions, None)


def test_a_list_of_answers_that_are_no_counts_is_told_before_they_are_counted():
    questions = QuestionSet("own", "count", (open_question(0, "2"),))
    counting = own_benchmark(task="count", predictions="counts")
    check_scores(counting, questions, AnswerList(("1", "2"), (1, 1)))
    with pytest.raises(UserError, match="a predicted count: got 'red', wanted a number"):
        check_scores(counting, questions, AnswerList(("1", "red"), (1, 1)))


def test_a_count_is_right_as_it_is_compared():
    zero, one = (open_question(number, str(number), type="count") for number in range(2))
    assert is_right(one, "0", "count") and is_right(one, 1.4, "count")
    assert not is_right(zero, "0", "count")
