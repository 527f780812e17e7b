"""What can be seen in a clip: the values of its facts, and which clip shows which.

A clip shows one object (level simple) or two that act one after the other (level full). Training clips draw their
facts; those of the balanced splits are enumerated through a seeded permutation, so that no two clips of val and test
agree, and number and split alone say what a clip shows.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import TypeVar

import numpy as np

from mama_ray.data.synthetic.config import CorpusConfig, Domain
from mama_ray.data.synthetic.own_facts import own_states, own_values
from mama_ray.data.synthetic.vocabulary import (
    COLOURS,
    MOTIONS,
    NUM_OWN_STATES,
    NUM_STATES,
    SHAPES,
    SIZES,
    SOURCE_TOPICS,
    TOPICS,
    Facts,
    Thing,
    max_distance,
)

# Which random numbers are drawn from a stream; each keeps its meaning when another draws more.
STREAMS = {
    "facts": 0,
    "spoil": 1,
    "words": 2,
    "scene": 3,
    "questions": 4,
    "enumeration": 5,
    "topic_ranks": 6,
    "narrators": 7,
    "generated": 8,
    "rephrased": 9,
    "label": 10,
}
_SPLIT_KEYS = {"train": 0, "meta": 1, "val": 2, "test": 3}


def stream_rng(seed: int, stream: str, split: str = "train", number: int = 0) -> np.random.Generator:
    """Return the generator of one stream of one clip: the same on every machine, whatever else was generated."""
    key = (seed, STREAMS[stream], _SPLIT_KEYS[split], number)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def facts_of(config: CorpusConfig, split: str, number: int) -> Facts:
    """Return what clip `number` of a split shows."""
    if split == "train":
        return _draw_facts(config, number)
    topics, has_own = config.topics_of(split), config.topic_facts == "own"
    layer, topic = divmod(number, len(topics))
    if config.level == "simple":
        return (_enumerated_thing(config.seed, split, topic, layer, has_own=has_own),)
    # Two layers of topics belong together: each clip of the second shows what one of the first does, with the order
    # reversed. Only who acts first tells them apart.
    pair, is_twin = divmod(layer, 2)
    if has_own:
        facts = _own_pair(config.seed, split, topics, topic, pair, is_twin=bool(is_twin))
        return facts[::-1] if is_twin else facts
    distance = 1 + pair % max_distance(len(topics))
    first_topic = (topic - distance) % len(topics) if is_twin else topic
    facts = _enumerated_pair(config.seed, split, topics, first_topic, distance, pair)
    return facts[::-1] if is_twin else facts


@lru_cache(maxsize=16)
def topic_ranks(seed: int) -> dict[str, int]:
    """Return each topic's rank in training, 1 the most frequent. The seed shuffles them: a shape that is hard to
    recognise should not always be the rare one.
    """
    order = stream_rng(seed, "topic_ranks").permutation(len(TOPICS))
    return {TOPICS[topic]: rank for rank, topic in enumerate(order, start=1)}


def topic_shares(seed: int, zipf_exponent: float, domain: Domain = "all") -> dict[str, float]:
    """Return the probability of each topic in training; they sum to 1, and are 0 for what the domain lacks."""
    ranks = topic_ranks(seed)
    shown = SOURCE_TOPICS if domain == "source" else TOPICS
    weights = np.array([ranks[topic] ** -zipf_exponent if topic in shown else 0.0 for topic in TOPICS])
    return dict(zip(TOPICS, weights / weights.sum(), strict=True))


def _draw_facts(config: CorpusConfig, number: int) -> Facts:
    rng = stream_rng(config.seed, "facts", "train", number)
    shares = np.array(list(topic_shares(config.seed, config.zipf_exponent, config.domain).values()))
    facts: list[Thing] = []
    for _ in range(1 if config.level == "simple" else 2):
        # The second object follows the same imbalance, else rare shapes would be seen often after all.
        left = np.where([shape in {thing.shape for thing in facts} for shape in SHAPES], 0.0, shares)
        shape = SHAPES[int(rng.choice(len(SHAPES), p=left / left.sum()))]
        own = own_values(shape) if config.topic_facts == "own" else {"colour": COLOURS, "motion": MOTIONS}
        colours = [colour for colour in own["colour"] if colour not in {thing.colour for thing in facts}]
        facts.append(Thing(shape, draw(rng, colours), draw(rng, SIZES), draw(rng, own["motion"])))
    return tuple(facts)


_Value = TypeVar("_Value")


def draw(rng: np.random.Generator, values: Sequence[_Value]) -> _Value:
    """Draw one of a sequence, uniformly."""
    return values[int(rng.integers(len(values)))]


def _place(split: str, number: int) -> tuple[str, int]:
    """Return which permutation a split reads and at which place: test from its front, val from its back, so that they
    do not meet and neither changes with the other's size.
    """
    return ("meta", number) if split == "meta" else ("test", number if split == "test" else -1 - number)


def _enumerated_thing(seed: int, split: str, topic: int, number: int, *, has_own: bool = False) -> Thing:
    permutation, place = _place(split, number)
    # A meta-set larger than the facts begins again.
    if has_own:
        state = int(_permutation(seed, permutation, topic, NUM_OWN_STATES)[place % NUM_OWN_STATES])
        return Thing(TOPICS[topic], *own_states(TOPICS[topic])[state])
    state = int(_permutation(seed, permutation, topic, NUM_STATES)[place % NUM_STATES])
    return _thing(TOPICS[topic], state)


def _own_pair(seed: int, split: str, topics: tuple[str, ...], topic: int, number: int, *, is_twin: bool) -> Facts:
    """Distance, first and second state are drawn at once: there are few of each."""
    permutation, place = _place(split, number)
    distances = max_distance(len(topics))
    size = distances * NUM_OWN_STATES**2
    # Numbered by rounds of all topics, so that a pair and its twin, which stand at different topics, agree.
    drawn = int(_permutation(seed, permutation, 0, size)[place % size])
    distance, states = divmod(drawn, NUM_OWN_STATES**2)
    first, second = divmod(states, NUM_OWN_STATES)
    start = (topic - (1 + distance)) % len(topics) if is_twin else topic
    shapes = topics[start], topics[(start + 1 + distance) % len(topics)]
    one, two = (Thing(shape, *own_states(shape)[state]) for shape, state in zip(shapes, (first, second), strict=True))
    return (one, two)


def _enumerated_pair(seed: int, split: str, topics: tuple[str, ...], topic: int, distance: int, number: int) -> Facts:
    permutation, place = _place(split, number)
    num_second = NUM_STATES - NUM_STATES // len(COLOURS)
    num_pairs = NUM_STATES * num_second
    first, second = divmod(
        int(_permutation(seed, permutation, topic, num_pairs)[place % num_pairs]),
        num_second,
    )
    thing = _thing(topics[topic], first)
    other = _thing(topics[(topic + distance) % len(topics)], second)
    # `second` counts colour offsets from 0 to 6: one more than that, from the first colour on, never meets it.
    colour = COLOURS[(COLOURS.index(thing.colour) + 1 + COLOURS.index(other.colour)) % len(COLOURS)]
    return (thing, replace(other, colour=colour))


def _thing(shape: str, state: int) -> Thing:
    return Thing(shape, *_states()[state])


@lru_cache(maxsize=1)
def _states() -> list[tuple[str, str, str]]:
    return list(product(COLOURS, SIZES, MOTIONS))


@lru_cache(maxsize=64)
def _permutation(seed: int, name: str, topic: int, size: int) -> np.ndarray:
    return stream_rng(seed, "enumeration", name, topic).permutation(size)
