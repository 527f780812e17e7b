"""Captions of one object say their facts back, whatever words they were put into."""

import numpy as np
import pytest

from mama_ray.data.synthetic.grammar import Statement, render_caption
from mama_ray.data.synthetic.read_back import count_named_right, read_thing
from mama_ray.data.synthetic.vocabulary import ATTRIBUTES, Thing
from mama_ray.data.synthetic.words import COLOUR_WORDS, MOTION_WORDS, SHAPE_WORDS, SIZE_WORDS


def random_thing(rng: np.random.Generator, missing_rate: float) -> Thing:
    values = {name: str(rng.choice(choices)) for name, choices in ATTRIBUTES.items()}
    return Thing(**{name: None if rng.random() < missing_rate else value for name, value in values.items()})


@pytest.mark.parametrize("missing_rate", [0.0, 0.4])
def test_every_caption_of_one_object_reads_back_as_what_it_stated(missing_rate):
    rng = np.random.default_rng(0)
    for _ in range(1000):
        thing = random_thing(rng, missing_rate)
        caption = render_caption(Statement((thing,)), rng)
        assert read_thing(caption) == thing, caption


@pytest.mark.parametrize(
    ("name", "words"), [("shape", SHAPE_WORDS), ("colour", COLOUR_WORDS), ("size", SIZE_WORDS)], ids=str
)
def test_every_synonym_stands_for_its_value(name, words):
    for value, synonyms in words.items():
        for word in synonyms:
            assert getattr(read_thing(f"there is a {word} here"), name) == value


def test_every_form_of_every_motion_stands_for_it():
    for motion, ways in MOTION_WORDS.items():
        for form in (form for forms in ways for form in forms):
            assert read_thing(f"a thing {form}") == Thing(None, None, None, motion)


def test_words_inside_other_words_name_nothing():
    assert read_thing("a boxer blueprints moonlight, redder") == Thing(None, None, None, None)


def test_case_and_spaces_do_not_matter():
    assert read_thing("  A  Tiny\nLOVE   heart Moving\tUp ") == Thing("heart", None, "small", "up")


def test_of_two_values_the_first_counts():
    assert read_thing("a red or blue circle").colour == "red"


def test_named_right_are_the_facts_that_agree_and_never_those_left_out():
    things = [Thing("circle", "red", "small", "left"), Thing("ring", "blue", None, "up")]
    counts = count_named_right(["a little crimson box moves left", "a blue thing rises"], things)
    assert counts == {"shape": 0, "colour": 2, "size": 1, "motion": 2}
