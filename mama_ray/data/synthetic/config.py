"""What a corpus is made from: its size, its pictures, and how far its training captions are spoiled."""

import hashlib
import json
from typing import Literal

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config, decisive_values
from mama_ray.data.synthetic.vocabulary import SOURCE_TOPICS, TOPICS, count_distinct_facts, has_room

Level = Literal["simple", "full"]
Split = Literal["train", "meta", "val", "test"]
Domain = Literal["all", "source", "shifted"]
Texts = Literal["plain", "first_person"]

# Part of the hash: a change of what the generator draws or says must not reuse a corpus made before it.
GENERATOR_VERSION = 2
# What spoils training captions.
SPOILING_RATES = ("incomplete_rate", "wrong_rate", "swapped_rate", "misread_rate")


class LabelRate(Config):
    """Share of the training clips of each kind that have a label: a sign in the picture, which their caption names."""

    clean: float = Field(default=0.0, ge=0, le=1)
    """Of clips whose caption is true and whole."""

    incomplete: float = Field(default=0.0, ge=0, le=1)
    """Of clips whose caption leaves facts out."""

    wrong: float = Field(default=0.0, ge=0, le=1)
    """Of clips whose caption states a false fact."""

    swapped: float = Field(default=0.0, ge=0, le=1)
    """Of clips with another clip's caption; the label that it names is still the one in the picture."""

    misread: AddedLater[float] = Field(default=0.0, ge=0, le=1)
    """Of clips whose caption is misread."""


class CorpusConfig(Config):
    """The embedded corpus. Every clip is a pure function of this config, its split and its number.

    Only the training split is spoiled and imbalanced; meta, val and test are clean and balanced over topics.
    """

    level: Level = "simple"
    """simple: one object. full: two objects that act one after the other, so captions tell an order of events."""

    domain: Domain = "all"
    """all: every topic, word and background. source: a part of them, to learn from before the rest is met: training
    clips of five of the eight topics, the plain word for everything, three sentence forms, calm backgrounds in even
    light. shifted: every topic, in dim light, with much noise and busy backgrounds, told by the rarer words and the
    other sentence forms."""

    meta_domain: AddedLater[Domain | None] = None
    """Domain of the clips of meta; null is `domain`. With source they show its five topics alone."""

    test_domain: AddedLater[Domain | None] = None
    """Domain of the clips of val and test; null is `domain`. With source they show its five topics alone."""

    topic_facts: AddedLater[Literal["shared", "own"]] = "shared"
    """shared: every topic has all colours and motions. own: each has two colours and two motions that no other has, so
    that a topic which is rare in training stays unknown."""

    label_rate: AddedLater[LabelRate] = LabelRate()
    """How many training clips have a label, by what was done to their caption. Where false captions are labelled and
    true ones are not, a model that reads labels finds the false ones easy. The other splits have none."""

    label_signs: AddedLater[int] = Field(default=8, ge=1, le=8)
    """Letters, and digits, that labels are made of: 8 make 64 labels. With fewer, clips of one batch share a label, so
    that reading it leaves them to be told apart by what they show."""

    texts: AddedLater[Texts] = "plain"
    """plain: every clip has captions, all of them human. first_person: narrations as Ego4D's ("#C C sees ..."): a part
    of the training clips has human ones and rephrased ones, the others have generated ones alone, with errors."""

    human_rate: AddedLater[float] = Field(default=0.2, gt=0, le=1)
    """Share of training clips that somebody narrated; of first_person."""

    num_rephrased: AddedLater[int] = Field(default=1, ge=0, le=8)
    """Rephrased narrations of a training clip that has human ones, which say the same in other words; of
    first_person."""

    num_generated: AddedLater[int] = Field(default=2, ge=0, le=16)
    """Generated narrations of a training clip without human ones, which has no text at 0; of first_person."""

    generated_wrong_rate: AddedLater[float] = Field(default=0.3, ge=0, le=1)
    """Share of generated narrations that state one false fact, each drawn by itself; of first_person."""

    num_train: int = Field(default=3000, ge=1)
    """Training clips."""

    num_meta: int = Field(default=128, ge=0)
    """Clips of the clean, balanced meta-set; a multiple of 16 balances it exactly."""

    num_val: int = Field(default=200, ge=0)
    """Validation clips; no two show the same facts."""

    num_test: int = Field(default=400, ge=0)
    """Test clips; no two show the same facts, and none shows those of a validation clip."""

    num_captions: int = Field(default=1, ge=1, le=8)
    """Captions of a training or meta clip, all of the same facts; val and test have one."""

    incomplete_rate: float = Field(default=0.15, ge=0, le=1)
    """Share of training clips whose captions leave facts out."""

    wrong_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of training clips whose captions state one false fact."""

    swapped_rate: float = Field(default=0.3, ge=0, le=1)
    """Share of training clips that carry the captions of another training clip."""

    misread_rate: AddedLater[float] = Field(default=0.0, ge=0, le=1)
    """Share of training clips whose captions take each colour and each motion for another one, always the same: what
    the captions of one careless source say. Such faults can be learned as truth can, so their loss falls as well."""

    zipf_exponent: float = Field(default=1.0, ge=0, le=4)
    """Imbalance of topics in training: the topic of rank r has a share proportional to r ** -zipf_exponent."""

    image_size: int = Field(default=48, ge=32, le=512, multiple_of=2)
    """Side of the square video in pixels; H.264 in 4:2:0 wants an even number."""

    num_frames: int = Field(default=8, ge=4, le=256)
    """Frames of a clip."""

    fps: int = Field(default=8, ge=1, le=60)
    """Frames per second."""

    seed: int = Field(default=0, ge=0)
    """Seed of everything."""

    @model_validator(mode="after")
    def _is_possible(self) -> "CorpusConfig":
        spoiled = sum(getattr(self, name) for name in SPOILING_RATES)
        if spoiled > 1 + 1e-9:
            raise ValueError(f"{' + '.join(SPOILING_RATES)}: got {spoiled:g}, wanted at most 1")
        if self.swapped_rate and self.num_train < 2:
            raise ValueError(
                f"swapped_rate {self.swapped_rate} needs two training clips, got num_train {self.num_train}"
            )
        if self.has_labels and self.texts != "plain":
            raise ValueError(f"label_rate is of texts plain: narrations name no label, got texts {self.texts}")
        room = {"num_topics": len(self.topics_of("test")), "has_own": self.topic_facts == "own"}
        if not has_room(self.level, self.num_val, self.num_test, **room):
            distinct = count_distinct_facts(self.level, **room)
            raise ValueError(
                f"num_val {self.num_val} + num_test {self.num_test}: wanted at most {distinct} together, the distinct "
                f"facts of level {self.level}, each rounded up to whole rounds of topics"
            )
        return self

    @property
    def num_clips(self) -> dict[str, int]:
        """Clips per split, in the order in which the corpus enumerates them."""
        return {
            "train": self.num_train,
            "meta": self.num_meta,
            "val": self.num_val,
            "test": self.num_test,
        }

    @property
    def has_labels(self) -> bool:
        """Whether any clip has a label."""
        return self.label_rate != LabelRate()

    def domain_of(self, split: str) -> Domain:
        """Return the domain that a split's scenes and words are of."""
        own = {"meta": self.meta_domain, "val": self.test_domain, "test": self.test_domain}
        return own.get(split) or self.domain

    def topics_of(self, split: str) -> tuple[str, ...]:
        """Return the topics of a split, in their order. A corpus of the source domain is balanced over all topics
        outside of training, unless it says that these splits are of the source.
        """
        own = {"train": self.domain, "meta": self.meta_domain}.get(split, self.test_domain)
        return SOURCE_TOPICS if own == "source" else TOPICS

    @property
    def duration_s(self) -> float:
        """Length of a clip."""
        return self.num_frames / self.fps


def corpus_hash(config: CorpusConfig) -> str:
    """Name what the config generates: 64 hexadecimal digits."""
    described = decisive_values(config)  # which leaves out what was added later and has its default
    if config.domain == "all":  # added later, too, but folders are named by it (orchestration/prepare/embedded.py)
        del described["domain"]
    record = {"generator": GENERATOR_VERSION, "config": described}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
