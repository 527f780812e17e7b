"""Answers follow from the facts: each question is answered again here from the facts alone."""

from collections import Counter

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import describe_clip

PLAIN = {"orbits": "goes round", "left": "moves left", "right": "moves right", "up": "moves up", "down": "moves down"}
PLURALS = {
    "go round": "orbits", "move left": "left", "move right": "right", "move up": "up", "move down": "down",
    "grow": "grows", "shrink": "shrinks", "blink": "blinks",
}  # fmt: skip


def asked(level: str, count: int = 256) -> list[tuple[list[dict], dict]]:
    clips = [describe_clip(CorpusConfig(level=level, num_test=256), "test", number) for number in range(count)]
    return [(clip.truth["facts"]["objects"], question) for clip in clips for question in clip.questions]


def named_object(objects: list[dict], question: str) -> dict:
    """The one object whose shape or colour the question names."""
    words = question.rstrip("?").split()
    found = [thing for thing in objects if thing["shape"] in words or thing["colour"] in words]
    assert len(found) == 1, question
    return found[0]


def answer(objects: list[dict], kind: str, question: str) -> str:
    if kind == "count":
        what = question.removeprefix("how many ").removesuffix(" objects are there?")
        if what.endswith("?"):
            motion = PLURALS[what.removeprefix("objects ").rstrip("?")]
            number = sum(thing["motion"] == motion for thing in objects)
        else:
            number = sum(what in thing.values() for thing in objects)
        return ("zero", "one", "two")[number]
    if kind == "order":
        thing = objects[0] if "first" in question else objects[1]
        verb = PLAIN.get(thing["motion"], thing["motion"])
        return f"{thing['shape']} {verb}" if question.startswith("what happens") else thing["shape"]
    thing = named_object(objects, question)
    if kind == "action":
        assert thing["motion"] not in ("left", "right", "up", "down")
        return PLAIN.get(thing["motion"], thing["motion"])
    return thing[{"what": "shape", "colour": "colour", "size": "size", "direction": "motion"}[kind]]


@pytest.mark.parametrize("level", ["simple", "full"])
def test_every_answer_follows_from_the_facts(level):
    for objects, question in asked(level):
        assert set(question) == {"question", "answer", "type"}
        assert question["answer"] == answer(objects, question["type"], question["question"]), question


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        ("simple", {"what", "colour", "size", "count", "direction", "action"}),
        ("full", {"what", "colour", "size", "count", "direction", "action", "order"}),
    ],
)
def test_all_types_of_questions_are_asked(level, kinds):
    assert {question["type"] for _, question in asked(level)} == kinds


@pytest.mark.parametrize("kind", ["what", "colour", "size", "count", "direction", "order"])
def test_no_single_answer_is_right_most_of_the_time(kind):
    answers = Counter(question["answer"] for _, question in asked("full") if question["type"] == kind)
    assert max(answers.values()) < 0.62 * answers.total()
