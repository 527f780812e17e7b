"""From facts to a sentence: templates and synonyms, drawn at random."""

from dataclasses import dataclass

import numpy as np

from mama_ray.data.synthetic.config import Domain, Texts
from mama_ray.data.synthetic.facts import draw
from mama_ray.data.synthetic.own_facts import EVERY_COLOUR_WORDS, EVERY_MOTION_WORDS
from mama_ray.data.synthetic.vocabulary import Facts, Thing
from mama_ray.data.synthetic.words import (
    ANY_MOTION_WORDS,
    ANY_SHAPE_WORDS,
    FIRST_PERSON_ONE_TEMPLATES,
    FIRST_PERSON_ORDERED_TEMPLATES,
    FIRST_PERSON_UNORDERED_TEMPLATES,
    ONE_TEMPLATES,
    ORDERED_TEMPLATES,
    SHAPE_WORDS,
    SIZE_WORDS,
    UNORDERED_TEMPLATES,
)

# The source domain knows the first sentence forms of each kind only, the shifted one the last.
_FORMS: dict[Domain, slice] = {"all": slice(None), "source": slice(3), "shifted": slice(-3, None)}
# The plain word is the commoner one, as in real captions.
_PLAIN_WORD_RATE: dict[Domain, float] = {"all": 0.5, "source": 1.0, "shifted": 0.0}
# Of one object, of two in their order, and of two without.
_TEMPLATES: dict[Texts, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "plain": (ONE_TEMPLATES, ORDERED_TEMPLATES, UNORDERED_TEMPLATES),
    "first_person": (
        FIRST_PERSON_ONE_TEMPLATES,
        FIRST_PERSON_ORDERED_TEMPLATES,
        FIRST_PERSON_UNORDERED_TEMPLATES,
    ),
}


@dataclass(frozen=True)
class Statement:
    """What a caption says: objects with the facts it gives them, and whether it tells their order."""

    things: Facts
    tells_order: bool = True


def render_caption(
    statement: Statement, rng: np.random.Generator, *, domain: Domain = "all", texts: Texts = "plain"
) -> str:
    """Put a statement into the words of a domain; facts that are None are left out."""
    of_one, in_order, without_order = _TEMPLATES[texts]
    plain_word_rate, forms = _PLAIN_WORD_RATE[domain], _FORMS[domain]
    phrases = [_phrases(thing, rng, plain_word_rate) for thing in statement.things]
    if len(phrases) == 1:
        noun, moves, moving = phrases[0]
        return draw(rng, of_one[forms]).format(a=noun, moves=moves, moving=moving)
    if not statement.tells_order and rng.random() < 0.5:
        phrases.reverse()  # a caption that tells no order must not tell it by the order of its words
    templates = (in_order if statement.tells_order else without_order)[forms]
    (a, moves_a, moving_a), (b, moves_b, moving_b) = phrases
    return draw(rng, templates).format(a=a, moves_a=moves_a, moving_a=moving_a, b=b, moves_b=moves_b, moving_b=moving_b)


def _phrases(thing: Thing, rng: np.random.Generator, plain_word_rate: float) -> tuple[str, str, str]:
    """Return noun phrase, finite verb and participle."""
    adjectives = [
        _word(words[value], rng, plain_word_rate)
        for words, value in ((SIZE_WORDS, thing.size), (EVERY_COLOUR_WORDS, thing.colour))
        if value is not None
    ]
    noun = _word(ANY_SHAPE_WORDS if thing.shape is None else SHAPE_WORDS[thing.shape], rng, plain_word_rate)
    phrase = " ".join([*adjectives, noun])
    article = "an" if phrase[0] in "aeiou" else "a"
    motions = ANY_MOTION_WORDS if thing.motion is None else EVERY_MOTION_WORDS[thing.motion]
    moves, moving = _word(motions, rng, plain_word_rate)
    return f"{article} {phrase}", moves, moving


def _word(words, rng: np.random.Generator, plain_word_rate: float):
    return words[0] if rng.random() < plain_word_rate else words[int(rng.integers(1, len(words)))]
