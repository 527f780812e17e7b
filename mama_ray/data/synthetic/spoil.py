"""How a training caption goes bad: it leaves facts out, states a false one, tells of another clip or misreads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.facts import draw, facts_of, stream_rng
from mama_ray.data.synthetic.grammar import Statement
from mama_ray.data.synthetic.own_facts import OWN_ATTRIBUTES
from mama_ray.data.synthetic.vocabulary import ATTRIBUTES, Facts, Thing

# In level full an incomplete caption leaves out a whole event, the order, or some attributes.
_WHOLE_EVENT_RATE = 0.35
_ORDER_RATE = 0.15
# In level full a wrong caption turns the order round this often; else one attribute of one object is false.
_WRONG_ORDER_RATE = 0.2
_MISREAD = ("colour", "motion")


@dataclass(frozen=True)
class Spoiling:
    """What was done to the captions of one clip. `change` says it in JSON; `caption_number` is the training clip whose
    words they are.
    """

    kind: str
    statement: Statement
    caption_number: int
    change: dict


def spoil(config: CorpusConfig, number: int, facts: Facts) -> Spoiling:
    """Draw what the captions of training clip `number`, which shows `facts`, say."""
    rng = stream_rng(config.seed, "spoil", "train", number)
    lot = rng.random()
    if lot < config.incomplete_rate:
        statement, change = _leave_out(facts, rng)
        return Spoiling("incomplete", statement, number, change)
    if lot < config.incomplete_rate + config.wrong_rate:
        statement, change = falsify(facts, rng, attributes_of(config))
        return Spoiling("wrong", statement, number, change)
    if lot < config.incomplete_rate + config.wrong_rate + config.swapped_rate:
        other = _another_clip(config, number, facts, rng)
        if other is None:
            return Spoiling("clean", Statement(facts), number, {})
        statement = Statement(facts_of(config, "train", other))
        return Spoiling("swapped", statement, other, {"swapped_with": other})
    if lot < config.incomplete_rate + config.wrong_rate + config.swapped_rate + config.misread_rate:
        statement, change = _misread(facts, attributes_of(config))
        return Spoiling("misread", statement, number, change)
    return Spoiling("clean", Statement(facts), number, {})


def _misread(facts: Facts, attributes: Mapping[str, Sequence[str]]) -> tuple[Statement, dict]:
    """Take each colour and each motion for its neighbour: the first for the second and the second for the first."""
    things = [
        replace(thing, **{name: _neighbour(attributes[name], getattr(thing, name)) for name in _MISREAD})
        for thing in facts
    ]
    paths = [f"objects.{place}.{name}" for place in range(len(facts)) for name in _MISREAD]
    return Statement(tuple(things)), {"misread": paths}


def _neighbour(values: Sequence[str], value: str) -> str:
    return values[values.index(value) ^ 1]


def _leave_out(facts: Facts, rng: np.random.Generator) -> tuple[Statement, dict]:
    if len(facts) == 2:
        lot = rng.random()
        if lot < _WHOLE_EVENT_RATE:
            gone = int(rng.integers(2))
            return Statement((facts[1 - gone],)), {"omitted": [f"objects.{gone}"]}
        if lot < _WHOLE_EVENT_RATE + _ORDER_RATE:
            return Statement(facts, tells_order=False), {"omitted": ["order"]}
    things, omitted = [], []
    for place, thing in enumerate(facts):
        # At least one fact goes and at least one stays.
        count = int(rng.integers(1, len(ATTRIBUTES)))
        names = sorted(str(name) for name in rng.choice(list(ATTRIBUTES), size=count, replace=False))
        things.append(replace(thing, **dict.fromkeys(names)))
        omitted += [f"objects.{place}.{name}" for name in names]
    return Statement(tuple(things)), {"omitted": omitted}


def attributes_of(config: CorpusConfig) -> Mapping[str, Sequence[str]]:
    """Return the values that a corpus has of each fact."""
    return OWN_ATTRIBUTES if config.topic_facts == "own" else ATTRIBUTES


def falsify(
    facts: Facts, rng: np.random.Generator, attributes: Mapping[str, Sequence[str]] = ATTRIBUTES
) -> tuple[Statement, dict]:
    """Return a statement with one false fact, one of `attributes`, and which one it is."""
    if len(facts) == 2 and rng.random() < _WRONG_ORDER_RATE:
        return Statement(facts[::-1]), {"wrong": ["order"]}
    place = int(rng.integers(len(facts)))
    name = draw(rng, tuple(attributes))
    # The other object's shape and colour stay apart, else the sentence would speak of one object twice.
    taken = {getattr(thing, name) for thing in (facts if name in ("shape", "colour") else (facts[place],))}
    value = draw(rng, [value for value in attributes[name] if value not in taken])
    things: list[Thing] = list(facts)
    things[place] = replace(things[place], **{name: value})
    return Statement(tuple(things)), {"wrong": [f"objects.{place}.{name}"]}


def _another_clip(config: CorpusConfig, number: int, facts: Facts, rng: np.random.Generator) -> int | None:
    """A clip with the same facts would not be wrong, so it is passed over; None where there is no other."""
    start = int(rng.integers(config.num_train))
    candidates = ((start + step) % config.num_train for step in range(config.num_train))
    return next(
        (n for n in candidates if n != number and facts_of(config, "train", n) != facts),
        None,
    )
