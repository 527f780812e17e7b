"""Answers on the page: scores with intervals, questions with frames, options and what was answered."""

import re

import pytest

from mama_ray.data.questions.question import Question
from mama_ray.data.questions.table import QuestionSet
from mama_ray.evaluation.question_protocol import AnsweredExample, QuestionBenchmark, measure
from mama_ray.reporting.answer_summary import load_examples, summarise_result, summarise_validation
from mama_ray.reporting.content import Report, RunReport
from mama_ray.reporting.page import render_report
from mama_ray.storage.places import Place
from tests.orchestration.training.question_clips import write_clips

OPEN = QuestionBenchmark(
    family="question_answering", dataset="own", task="open_ended", predictions="answer_records", num_questions=9
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    return Place.of(write_clips(folder, captioned=False, is_embedded=False, num_train=2))


def example(right: str, predicted: str | None, *, clip_id: str = "train0", **fields) -> AnsweredExample:
    known = {"question_id": "q", "question": "what <is> it?", "type": "yes_no"}
    return AnsweredExample(clip_id=clip_id, right=right, predicted=predicted, **known | fields)


def shown(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page[page.index("<main") :]))


def test_scores_of_a_result_have_counts_intervals_and_what_is_missing(shards: Place):
    questions = [
        Question(f"{n}", "train0", "what?", ("red",), type=("a_b", "c")[n % 2], split="test") for n in range(4)
    ]
    predictions = [(f"{n}", "red" if n else "blue") for n in range(4)]
    result = measure(OPEN, QuestionSet("own", "open_ended", tuple(questions)), predictions, source="x", num_missing=1)
    found = summarise_result(result.model_copy(update={"examples": (example("red", "blue"),)}), shards)
    assert [(row.name, row.percent, row.num_right, row.num_questions) for row in found.rows] == [
        ("all", 75.0, 3, 4), ("a b", 50.0, 1, 2), ("c", 100.0, 2, 2),
    ]  # fmt: skip
    assert found.rows[0].interval == "30.1 to 95.4"
    text = shown(render_report(Report("Run", (RunReport("mine", answering=found),))))
    assert "Answers on own (4 of 9 questions)" in text and "1 questions are wrong because their clip" in text
    assert "75.0 % 30.1 to 95.4" in text and "Cost of training" in text and "Retrieval" not in text


def test_questions_are_shown_with_frames_options_and_answers(shards: Place):
    examples = [
        example("red", "blue"),
        example("b", "a", options=("a", "b", "c"), clip_id="train1"),
        example("ten", "10", is_right=True),
        example("red", None, clip_id="gone"),
    ]
    found = load_examples(examples, shards)
    assert [one.frames is None for one in found] == [False, False, False, True]
    assert [[tuple(choice) for choice in one.choices] for one in found] == [
        [("red", True, False), ("blue", False, True)],
        [("a", False, True), ("b", True, False), ("c", False, False)],
        [("ten", True, True)],
        [("red", True, False)],
    ]
    records = [
        {"step": 4, "val/accuracy": 25.0, "val/accuracy/yes_no": 50.0},
        {"step": 5, "train/unweighted_loss": 1.0},
    ]
    answering = summarise_validation(records, examples, shards)
    page = render_report(Report("Run", (RunReport("mine", records=records, answering=answering),)))
    assert page.count("data:image/jpeg") == 3 and page.count("the clip cannot be read") == 1
    assert "what &lt;is&gt; it?" in page and page.count("no answer was given") == 1
    assert (
        len(re.findall('<li class=" given wrong">', page)) == 2
        and len(re.findall('<li class="right given">', page)) == 1
    )
    assert "after step 4" in shown(page) and "Accuracy on the validation split" in page


def test_a_run_without_questions_has_no_answers_on_its_page():
    records = [{"step": 1, "val/t2v_R@1": 1.0}]
    assert summarise_validation(records, (), Place.of("nowhere")) is None
    assert "Answers" not in shown(render_report(Report("Run", (RunReport("mine", records=records),))))
