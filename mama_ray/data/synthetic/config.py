"""What a corpus is made from: its size, its pictures, and how far its training captions are spoiled."""

import hashlib
import json
from typing import Literal

from pydantic import Field, model_validator

from mama_ray.config import Config
from mama_ray.data.synthetic.vocabulary import count_distinct_facts, has_room

Level = Literal["simple", "full"]
Split = Literal["train", "meta", "val", "test"]
Domain = Literal["all", "source"]

# Part of the hash: a change of what the generator draws or says must not reuse a corpus made before it.
GENERATOR_VERSION = 2


class CorpusConfig(Config):
    """The embedded corpus. Every clip is a pure function of this config, its split and its number.

    Only the training split is spoiled and imbalanced; meta, val and test are clean and balanced over topics.
    """

    level: Level = "simple"
    """simple: one object. full: two objects that act one after the other, so captions tell an order of events."""

    domain: Domain = "all"
    """all: every topic, word and background. source: a part of them, to learn from before the rest is met: training
    clips of five of the eight topics, the plain word for everything, three sentence forms, calm backgrounds in even
    light."""

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
        spoiled = self.incomplete_rate + self.wrong_rate + self.swapped_rate
        if spoiled > 1 + 1e-9:
            raise ValueError(f"incomplete_rate + wrong_rate + swapped_rate: got {spoiled:g}, wanted at most 1")
        if self.swapped_rate and self.num_train < 2:
            raise ValueError(
                f"swapped_rate {self.swapped_rate} needs two training clips, got num_train {self.num_train}"
            )
        if not has_room(self.level, self.num_val, self.num_test):
            distinct = count_distinct_facts(self.level)
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
    def duration_s(self) -> float:
        """Length of a clip."""
        return self.num_frames / self.fps


def corpus_hash(config: CorpusConfig) -> str:
    """Name what the config generates: 64 hexadecimal digits."""
    described = config.model_dump(mode="json")
    if config.domain == "all":
        del described["domain"]  # it came after corpora of this version had been made
    record = {"generator": GENERATOR_VERSION, "config": described}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
