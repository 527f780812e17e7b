"""What a clip can show: the values of each attribute, and the words that a caption may use for them.

A value's first word is its plain one, which questions and answers use; no word stands for two values, so two captions that
state different facts are different texts.
"""

from typing import Literal

Level = Literal["simple", "full"]
ATTRIBUTES = ("size", "colour", "shape", "motion")

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
    "heart": ("heart",),
    "crescent": ("crescent", "moon"),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green",),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "white": ("white",),
}
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big"),
}
# Pairs of a finite verb ("a circle moves left") and its participle ("a circle moving left").
MOTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "left": (
        ("moves left", "moving left"),
        ("slides to the left", "sliding to the left"),
    ),
    "right": (
        ("moves right", "moving right"),
        ("slides to the right", "sliding to the right"),
    ),
    "up": (("moves up", "moving up"), ("rises", "rising")),
    "down": (("moves down", "moving down"), ("falls", "falling")),
    "circling": (
        ("moves in a circle", "moving in a circle"),
        ("goes around", "going around"),
    ),
    "bouncing": (("bounces", "bouncing"), ("hops", "hopping")),
    "appearing": (("appears", "appearing"), ("fades in", "fading in")),
    "vanishing": (("vanishes", "vanishing"), ("fades away", "fading away")),
}
DIRECTIONS = ("left", "right", "up", "down")
VALUES: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "motion": tuple(MOTIONS),
}


def plain_word(attribute: str, value: str) -> str:
    """Return the word that questions and answers use for a value."""
    words = {"size": SIZES, "colour": COLOURS, "shape": SHAPES}
    return MOTIONS[value][0][0] if attribute == "motion" else words[attribute][value][0]
