"""Reads back what a caption says of one object: the inverse of the grammar, also for captions that a model wrote.

The words of the captions are unambiguous, so a fact is named where one of its words stands in the caption, whole.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from functools import lru_cache

from mama_ray.data.synthetic.own_facts import EVERY_COLOUR_WORDS, EVERY_MOTION_WORDS
from mama_ray.data.synthetic.vocabulary import Thing
from mama_ray.data.synthetic.words import SHAPE_WORDS, SIZE_WORDS

FACT_NAMES = tuple(field.name for field in fields(Thing))


def read_thing(caption: str) -> Thing:
    """Return the facts that a caption of one object names; None stands for what it does not name.

    Of several values of one fact, which no true caption of one object has, the first named counts.
    """
    text = " ".join(caption.lower().split())
    return Thing(**{name: _first_value(text, name) for name in FACT_NAMES})


def count_named_right(captions: Sequence[str], things: Sequence[Thing]) -> dict[str, int]:
    """Count for each fact the captions that name the value their object has."""
    counts = dict.fromkeys(FACT_NAMES, 0)
    for caption, thing in zip(captions, things, strict=True):
        for name, named, true in zip(FACT_NAMES, astuple(read_thing(caption)), astuple(thing), strict=True):
            counts[name] += named is not None and named == true
    return counts


def _first_value(text: str, name: str) -> str | None:
    pattern, values = _vocabulary(name)
    found = pattern.search(text)
    return found and values[found.group(1)]


@lru_cache(maxsize=len(FACT_NAMES))
def _vocabulary(name: str) -> tuple[re.Pattern, Mapping[str, str]]:
    """Return what finds a word of a fact, and the value that each word stands for."""
    if name == "motion":
        words = {motion: tuple(form for forms in ways for form in forms) for motion, ways in EVERY_MOTION_WORDS.items()}
    else:
        words = {"shape": SHAPE_WORDS, "colour": EVERY_COLOUR_WORDS, "size": SIZE_WORDS}[name]
    values = {word: value for value, synonyms in words.items() for word in synonyms}
    longest_first = sorted(values, key=len, reverse=True)  # else `heart` would be read out of `love heart`
    return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b"), values
