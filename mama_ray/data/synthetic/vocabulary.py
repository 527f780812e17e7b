"""What a clip of the embedded corpus can show: the values of its facts, and how many clips they give.

A clip shows one object (level simple) or two that act one after the other (level full).
"""

from dataclasses import asdict, dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "crescent", "heart")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SIZES = ("small", "large")
MOTIONS = ("left", "right", "up", "down", "orbits", "grows", "shrinks", "blinks")
DIRECTIONS = MOTIONS[:4]
ATTRIBUTES = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "motion": MOTIONS}


# A clip's topic is the shape of its (first) object.
TOPICS = SHAPES


# The topics that training clips of the source domain show.
SOURCE_TOPICS = TOPICS[:5]


NUM_STATES = len(COLOURS) * len(SIZES) * len(MOTIONS)


@dataclass(frozen=True)
class Thing:
    """One object. In what a caption states, None is a fact that it leaves out."""

    shape: str | None
    colour: str | None
    size: str | None
    motion: str | None


Facts = tuple[Thing, ...]


"""The objects of a clip in the order in which they act."""


def facts_to_dict(facts: Facts) -> dict:
    """Return facts as JSON: the objects in the order in which they act, absent facts left out."""
    return {"objects": [{name: value for name, value in asdict(thing).items() if value} for thing in facts]}


# Where a topic's facts are its own (`own_facts.py`): two colours, two sizes and two motions.
NUM_OWN_STATES = 8


def max_distance(num_topics: int) -> int:
    """Return how far two shapes of a clip of level full lie apart at most, cyclically, in the balanced splits.

    Distances below half of the circle keep a pair and its twin with the order reversed from being enumerated twice.
    """
    return (num_topics - 1) // 2


def count_distinct_facts(level: str, *, num_topics: int = len(TOPICS), has_own: bool = False) -> int:
    """Return how many clips val and test can have together."""
    states = NUM_OWN_STATES if has_own else NUM_STATES
    if level == "simple":
        return num_topics * states
    pairs = max_distance(num_topics) * states**2 if has_own else states * (states - states // len(COLOURS))
    return 2 * num_topics * pairs


def has_room(level: str, num_val: int, num_test: int, *, num_topics: int = len(TOPICS), has_own: bool = False) -> bool:
    """Whether val and test can be enumerated without meeting."""
    round_size = num_topics * (1 if level == "simple" else 2)
    rounds = -(-num_val // round_size) + -(-num_test // round_size)
    return rounds * round_size <= count_distinct_facts(level, num_topics=num_topics, has_own=has_own)
