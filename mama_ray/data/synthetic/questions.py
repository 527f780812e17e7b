"""Questions about a clip whose answers follow from its facts; answers are the plain words."""

import numpy as np

from mama_ray.data.synthetic.facts import draw
from mama_ray.data.synthetic.own_facts import EVERY_COLOUR_WORDS, EVERY_MOTION_WORDS
from mama_ray.data.synthetic.vocabulary import ATTRIBUTES, DIRECTIONS, Facts, Thing
from mama_ray.data.synthetic.words import SHAPE_WORDS

_NUMBERS = ("zero", "one", "two")


def ask(facts: Facts, rng: np.random.Generator) -> tuple[dict, ...]:
    """Return the questions of a clip as dicts of question, answer and type.

    Types: what, colour, size, count, direction (only of objects that go somewhere), action, and in level full order.
    An object is named by what the question does not ask for, its colour or its shape, which differ between two objects.
    """
    thing = facts[int(rng.integers(len(facts)))]
    shape, colour = SHAPE_WORDS[thing.shape][0], EVERY_COLOUR_WORDS[thing.colour][0]
    questions = [
        _question(
            "what",
            draw(rng, (f"what is {colour}?", f"which shape is the {colour} object?")),
            shape,
        ),
        _question(
            "colour",
            draw(rng, (f"what colour is the {shape}?", f"which colour has the {shape}?")),
            colour,
        ),
        _question("size", f"is the {shape} small or large?", thing.size),
        _count(facts, rng),
        _motion(thing, rng),
    ]
    if len(facts) == 2:
        questions += _order(facts, rng)
    return tuple(questions)


def _question(kind: str, question: str, answer: str) -> dict:
    return {"question": question, "answer": answer, "type": kind}


def _count(facts: Facts, rng: np.random.Generator) -> dict:
    """Half of these ask for something that is there, so that zero is no safe guess."""
    name = draw(rng, ("colour", "size", "motion"))
    value = getattr(facts[0], name) if rng.random() < 0.5 else draw(rng, ATTRIBUTES[name])
    count = _NUMBERS[sum(getattr(thing, name) == value for thing in facts)]
    if name == "motion":
        verb, _, rest = EVERY_MOTION_WORDS[value][0][0].partition(" ")
        plural = " ".join(filter(None, ("go" if verb == "goes" else verb.removesuffix("s"), rest)))
        return _question("count", f"how many objects {plural}?", count)
    return _question("count", f"how many {value} objects are there?", count)


def _motion(thing: Thing, rng: np.random.Generator) -> dict:
    named = draw(rng, (SHAPE_WORDS[thing.shape][0], f"{EVERY_COLOUR_WORDS[thing.colour][0]} object"))
    if thing.motion in DIRECTIONS:
        template = draw(rng, ("which direction does the {} move?", "which way does the {} go?"))
        return _question("direction", template.format(named), thing.motion)
    return _question("action", f"what does the {named} do?", EVERY_MOTION_WORDS[thing.motion][0][0])


def _order(facts: Facts, rng: np.random.Generator) -> list[dict]:
    first, second = facts
    place, thing = draw(rng, (("first", first), ("last", second)))
    return [
        _question(
            "order",
            f"what happens {place}?",
            f"{SHAPE_WORDS[thing.shape][0]} {EVERY_MOTION_WORDS[thing.motion][0][0]}",
        ),
        _question("order", f"which object acts {place}?", SHAPE_WORDS[thing.shape][0]),
    ]
