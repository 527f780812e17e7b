"""What one training run of the study is: everything that its result depends on, and the hash that names it."""

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from mama_ray.config import Config, decisive_values, with_overrides
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.vocabulary import TOPICS
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.settings import OptimConfig
from mama_ray.weighting.settings import MetaConfig, WeightingConfig

# Part of every hash: a change of what a run does must not take over results from before it.
CELL_VERSION = 1


class MetaSetConfig(Config):
    """Which clips the weight net learns from."""

    size: int = Field(128, ge=1)
    """Clips, the first of the corpus's meta split; a multiple of 8 has equally many of each topic."""

    wrong_share: float = Field(0.0, ge=0.0, le=1.0)
    """Share of them that carry the caption of another meta clip: a degraded meta-set."""

    zipf_exponent: float = Field(0.0, ge=0.0, le=4.0)
    """Imbalance of their topics, after the ranks of the training split; 0 is balanced."""


class CellConfig(Config):
    """One training run, in memory and on one core."""

    corpus: CorpusConfig = CorpusConfig(num_train=1500, num_meta=512, num_val=256, num_test=512)
    """The clips that are learned from; the cell's seed takes the place of its seed."""

    start: Literal["pretrained", "scratch"] = "pretrained"
    """Whether the model starts from the study's pretrained weights or from random ones."""

    pairs: Literal["all", "true"] = "all"
    """all: every training pair; true: an oracle's choice, without swapped and wrong captions."""

    captions: str | None = None
    """Name of the generated captions that are mixed in; null takes the corpus's own alone."""

    generated_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the reads of a clip that get its generated caption, where there is one."""

    caption_gate: bool = True
    """Whether generated captions that the quality gate flagged are left out."""

    meta_set: MetaSetConfig = MetaSetConfig()
    """The meta-set."""

    objective: ContrastiveConfig = ContrastiveConfig(margin=0.0)
    """The contrastive loss and its margin."""

    weighting: WeightingConfig = WeightingConfig(kind="uniform")
    """How losses become sample weights."""

    meta: MetaConfig = MetaConfig()
    """How the weight net learns."""

    optim: OptimConfig = OptimConfig()
    """The model's optimiser."""

    num_steps: int = Field(328, ge=0)
    """Training steps; 0 evaluates the start."""

    batch_size: int = Field(64, ge=2)
    """Clips per step."""

    num_evaluations: int = Field(8, ge=1)
    """Evaluations on val and test, evenly spread; the last is at the end of training."""

    seed: int = Field(0, ge=0)
    """Seed of the corpus, the clip order, the weight net and, from scratch, the model."""

    @model_validator(mode="after")
    def _is_possible(self) -> "CellConfig":
        if self.meta_set.size > self.corpus.num_meta:
            raise ValueError(f"meta_set.size {self.meta_set.size}: the corpus has num_meta {self.corpus.num_meta}")
        if self.is_meta_learned and self.meta.batch_size > self.meta_set.size:
            raise ValueError(f"meta.batch_size {self.meta.batch_size} is more than meta_set.size {self.meta_set.size}")
        if self.num_steps and self.batch_size > self.corpus.num_train:
            raise ValueError(f"batch_size {self.batch_size} is more than corpus.num_train {self.corpus.num_train}")
        if self.corpus.num_val < len(TOPICS) or self.corpus.num_test < len(TOPICS):
            raise ValueError(f"val and test need {len(TOPICS)} clips each: one of every topic")
        return self

    @property
    def is_meta_learned(self) -> bool:
        """Whether the run needs a meta-set."""
        return self.weighting.kind == "learned" and self.weighting.learner == "meta"

    @property
    def seeded_corpus(self) -> CorpusConfig:
        """The corpus of this cell's seed."""
        return with_overrides(self.corpus, {"seed": self.seed})


def pictures_of(corpus: CorpusConfig) -> CorpusConfig:
    """Return the corpus with the same pictures and true captions: what spoils captions changes no pixel."""
    return with_overrides(corpus, {"incomplete_rate": 0.0, "wrong_rate": 0.0, "swapped_rate": 0.0})


def cell_hash(cell: CellConfig, start: dict[str, Any]) -> str:
    """Name a cell by everything its result depends on; `start` describes what the model starts from."""
    record = {"version": CELL_VERSION, "cell": decisive_values(cell), "start": start}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:20]
