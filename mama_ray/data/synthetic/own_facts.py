"""Facts of one topic alone: with `topic_facts: own` a shape has two colours and two motions that no other has.

What is learned of one topic then tells nothing of another's colours and motions, so a topic that is rare in training
stays unknown: an imbalance that hurts. The second colour and motion of each topic are shown by such corpora alone.
"""

from functools import lru_cache
from itertools import product

from mama_ray.data.synthetic.vocabulary import ATTRIBUTES, COLOURS, MOTIONS, SHAPES, SIZES
from mama_ray.data.synthetic.words import COLOUR_WORDS, MOTION_WORDS

MORE_COLOURS = ("pink", "brown", "silver", "black", "lime", "teal", "maroon", "beige")
MORE_MOTIONS = ("up left", "up right", "down left", "down right", "circles back", "swings", "bounces", "pulses")
OWN_ATTRIBUTES = ATTRIBUTES | {"colour": COLOURS + MORE_COLOURS, "motion": MOTIONS + MORE_MOTIONS}

MORE_PAINT = {
    "pink": (250, 150, 195),
    "brown": (125, 70, 25),
    "silver": (185, 190, 200),
    "black": (12, 12, 14),
    "lime": (175, 245, 45),
    "teal": (0, 120, 125),
    "maroon": (120, 10, 50),
    "beige": (230, 205, 160),
}
EVERY_COLOUR_WORDS = COLOUR_WORDS | {
    "pink": ("pink", "rosy"),
    "brown": ("brown", "chestnut"),
    "silver": ("silver", "metallic"),
    "black": ("black", "jet"),
    "lime": ("lime", "chartreuse"),
    "teal": ("teal", "petrol"),
    "maroon": ("maroon", "burgundy"),
    "beige": ("beige", "sandy"),
}
EVERY_MOTION_WORDS = MOTION_WORDS | {
    "up left": (("veers northwest", "veering northwest"), ("heads to the upper left", "heading to the upper left")),
    "up right": (("veers northeast", "veering northeast"), ("heads to the upper right", "heading to the upper right")),
    "down left": (("veers southwest", "veering southwest"), ("heads to the lower left", "heading to the lower left")),
    "down right": (
        ("veers southeast", "veering southeast"),
        ("heads to the lower right", "heading to the lower right"),
    ),
    "circles back": (("circles back", "circling back"), ("revolves backwards", "revolving backwards")),
    "swings": (("swings", "swinging"), ("sways", "swaying")),
    "bounces": (("bounces", "bouncing"), ("hops", "hopping")),
    "pulses": (("pulses", "pulsing"), ("throbs", "throbbing")),
}


@lru_cache(maxsize=len(SHAPES))
def own_values(shape: str) -> dict[str, tuple[str, ...]]:
    """Return the colours and motions that a topic has for itself."""
    place = SHAPES.index(shape)
    return {
        "colour": (COLOURS[place], MORE_COLOURS[place]),
        "motion": (MOTIONS[place], MORE_MOTIONS[place]),
    }


@lru_cache(maxsize=len(SHAPES))
def own_states(shape: str) -> tuple[tuple[str, str, str], ...]:
    """Return every (colour, size, motion) that a topic can show, where its facts are its own."""
    values = own_values(shape)
    return tuple(product(values["colour"], SIZES, values["motion"]))
