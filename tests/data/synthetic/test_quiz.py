"""One-word questions follow from the truth, and their texts do not tell the answers."""

import json
from collections import Counter, defaultdict

import pyarrow as pa
import pytest

from mama_ray.data.questions.noise import swap_answers
from mama_ray.data.questions.table import QuestionSet
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.synthetic.quiz import quiz_of_index
from mama_ray.errors import UserError


def index_of(level: str, counts: dict[str, int]) -> pa.Table:
    config = CorpusConfig(level=level, num_train=800)
    clips = [describe_clip(config, split, number) for split, count in counts.items() for number in range(count)]
    rows = [
        {"clip_id": clip.clip_id, "video_id": clip.video_id, "split": clip.split, "truth": json.dumps(clip.truth)}
        for clip in clips
    ]
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module", params=["simple", "full"])
def index(request) -> pa.Table:
    return index_of(request.param, {"train": 600, "test": 320})


def objects_of(index: pa.Table) -> dict[str, list[dict]]:
    truths = zip(index["clip_id"].to_pylist(), index["truth"].to_pylist(), strict=True)
    return {clip_id: json.loads(truth)["facts"]["objects"] for clip_id, truth in truths}


def answer(objects: list[dict], kind: str, question: str) -> str:
    """Answer a question from the facts alone."""
    words = question.rstrip("?").split()
    if kind == "order":
        return objects[0 if "first" in words else 1]["shape"]
    if kind == "count":
        return ("zero", "one", "two")[sum(one["size"] == words[2] for one in objects)]
    (thing,) = [one for one in objects if one["shape"] in words or (one["colour"] in words and kind != "yes_no")]
    return ("no", "yes")[thing["colour"] == words[-1]] if kind == "yes_no" else thing[kind]


@pytest.mark.parametrize("task", ["open_ended", "multiple_choice"])
def test_every_answer_is_one_word_that_follows_from_the_facts(index, task):
    objects = objects_of(index)
    for question in quiz_of_index(index, task).questions:
        assert question.answers == (answer(objects[question.clip_id], question.type, question.question),)
        assert len(question.answers[0].split()) == 1


def test_the_questions_are_the_same_whatever_else_the_index_holds(index):
    some = quiz_of_index(index.slice(7, 5)).questions
    assert set(some) <= set(quiz_of_index(index).questions)


def accuracy_by_text(index: pa.Table) -> dict[str, float]:
    """Accuracy on test, by type, of the answer that is most frequent in training for the same words."""
    questions = quiz_of_index(index)
    seen: dict[str, Counter] = defaultdict(Counter)
    for question in questions.of_split("train").questions:
        seen[question.question][question.answers[0]] += 1
    hits: dict[str, list[bool]] = defaultdict(list)
    for question in questions.of_split("test").questions:
        guess = seen[question.question].most_common(1)
        hits[question.type].append(bool(guess) and guess[0][0] == question.answers[0])
    return {kind: sum(found) / len(found) for kind, found in hits.items()}


def test_the_text_alone_does_not_tell_the_answer(index):
    chance = {
        "shape": 1 / 8,
        "colour": 1 / 8,
        "motion": 1 / 8,
        "order": 1 / 8,
        "size": 1 / 2,
        "yes_no": 1 / 2,
        "count": 1 / 3,
    }
    found = accuracy_by_text(index)
    assert set(found) == {"shape", "colour", "size", "motion", "yes_no"} | (
        {"order", "count"} if len(found) > 5 else set()
    )
    for kind, share in found.items():
        assert share < chance[kind] + 0.09, kind


def test_the_right_option_stands_anywhere_and_what_else_is_seen_is_an_option(index):
    objects = objects_of(index)
    questions = quiz_of_index(index, "multiple_choice")
    assert questions.num_options == 5
    places = Counter(question.right_option for question in questions.questions)
    assert max(places.values()) < 1.2 * min(places.values())
    for question in questions.questions:
        name = "shape" if question.type == "order" else question.type
        assert {one[name] for one in objects[question.clip_id]} <= set(question.options)
        assert len(set(question.options)) == 5


def test_an_index_without_truth_has_no_quiz(index):
    foreign = index.slice(0, 1).set_column(3, "truth", pa.array([None], pa.string()))
    with pytest.raises(UserError, match="no truth to ask about: got clip"):
        quiz_of_index(foreign)


@pytest.mark.parametrize("task", ["open_ended", "multiple_choice"])
def test_swapped_answers_are_wrong_and_of_their_type_and_of_train_alone(index, task):
    questions = quiz_of_index(index, task)
    swapped, ids = swap_answers(questions, 0.3, seed=5)
    values = defaultdict(set)
    for question in questions.questions:
        values[question.type].add(question.answers[0])
    for before, after in zip(questions.questions, swapped.questions, strict=True):
        assert (before == after) == (before.question_id not in ids)
        if before != after:
            assert before.split == "train"
            assert after.answers != before.answers
            assert after.answers[0] in values[before.type]
            assert not after.options or after.options[after.right_option] == after.answers[0]
    assert len(ids) == round(0.3 * len(questions.of_split("train")))
    assert swap_answers(questions, 0.3, seed=5) == (swapped, ids)
    assert swap_answers(questions, 0.0, seed=5) == (questions, frozenset())


def test_a_type_with_one_answer_is_not_swapped(index):
    (one,) = quiz_of_index(index.slice(0, 1)).questions[:1]
    questions = QuestionSet("embedded_qa", "open_ended", (one,))
    assert swap_answers(questions, 1.0, seed=0) == (questions, frozenset())
