"""The texts of a clip: plain captions, or narrations in the first person by people, a rephraser and a narrator."""

from dataclasses import dataclass, replace

import numpy as np

from mama_ray.data.clip import Caption, CaptionSource
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.facts import stream_rng
from mama_ray.data.synthetic.grammar import Statement, render_caption
from mama_ray.data.synthetic.label import label_of, name_label
from mama_ray.data.synthetic.spoil import Spoiling, attributes_of, falsify, spoil
from mama_ray.data.synthetic.vocabulary import Facts


@dataclass(frozen=True)
class Told:
    """What is said of a clip.

    Attributes:
        spoiling: what was done to the first caption.
        kinds: of all narrations, clean or how they were spoiled; none of plain captions, which are all as the first.
    """

    captions: tuple[Caption, ...]
    spoiling: Spoiling
    kinds: tuple[str, ...] = ()


def caption(config: CorpusConfig, split: str, number: int, facts: Facts) -> Told:
    """Return the plain captions of a clip that shows `facts`; those of the training split are spoiled at its rates."""
    spoiling = spoil(config, number, facts) if split == "train" else _clean(facts, number)
    captions = human_captions(config, split, spoiling.statement, spoiling.caption_number)
    label = label_of(config, split, number)
    if label is not None:
        captions = tuple(replace(one, text=name_label(one.text, label)) for one in captions)
    return Told(captions, spoiling)


def narrate(config: CorpusConfig, split: str, number: int, facts: Facts) -> Told:
    """Return the narrations of a clip: human ones, rephrased if of the training split; or there generated ones alone.

    Human ones are spoiled at the rates of captions. Rephrased ones say the same as the human one in other words.
    Generated ones state one false fact at a rate of their own, each by itself, or all facts as they are.
    """
    if split != "train":
        told = caption(config, split, number, facts)
        return Told(told.captions, told.spoiling, ("clean",) * len(told.captions))
    if stream_rng(config.seed, "narrators", split, number).random() >= config.human_rate:
        return _generate(config, number, facts)
    told = caption(config, split, number, facts)
    rng = stream_rng(config.seed, "rephrased", split, number)
    captions = (
        *told.captions,
        *(_caption(config, split, told.spoiling.statement, rng, "rephrased") for _ in range(config.num_rephrased)),
    )
    return Told(captions, told.spoiling, (told.spoiling.kind,) * len(captions))


def human_captions(config: CorpusConfig, split: str, statement: Statement, number: int) -> tuple[Caption, ...]:
    """Captions with the words of clip `number`: a clip that is given another one's says exactly what that one would."""
    rng = stream_rng(config.seed, "words", split, number)
    count = config.num_captions if split in ("train", "meta") else 1
    return tuple(_caption(config, split, statement, rng, "human") for _ in range(count))


def _generate(config: CorpusConfig, number: int, facts: Facts) -> Told:
    rng = stream_rng(config.seed, "generated", "train", number)
    captions, spoilings = [], []
    for _ in range(config.num_generated):
        spoiling = _clean(facts, number)
        if rng.random() < config.generated_wrong_rate:
            statement, change = falsify(facts, rng, attributes_of(config))
            spoiling = Spoiling("wrong", statement, number, change)
        captions.append(_caption(config, "train", spoiling.statement, rng, "generated"))
        spoilings.append(spoiling)
    spoiling = spoilings[0] if spoilings else _clean(facts, number)
    return Told(tuple(captions), spoiling, tuple(spoiling.kind for spoiling in spoilings))


def _clean(facts: Facts, number: int) -> Spoiling:
    return Spoiling("clean", Statement(facts), number, {})


def _caption(
    config: CorpusConfig, split: str, statement: Statement, rng: np.random.Generator, source: CaptionSource
) -> Caption:
    return Caption(render_caption(statement, rng, domain=config.domain_of(split), texts=config.texts), source)
