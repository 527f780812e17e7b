"""What one training run of the study is: everything that its result depends on, and the hash that names it."""

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config, decisive_values, with_overrides
from mama_ray.data.synthetic.config import SPOILING_RATES, CorpusConfig
from mama_ray.data.synthetic.vocabulary import TOPICS
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.settings import OptimConfig
from mama_ray.weighting.settings import (
    MetaConfig,
    WeightingConfig,
    require_learnable_margin,
    require_learnable_share,
    require_no_trivial_optimum,
)

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


class RuleConfig(Config):
    """A rule that weighs training clips without a meta-set and without a net: the controls of the study."""

    kind: Literal["none", "keep_lowest", "mixture", "inverse_frequency"] = "none"
    """none: weighting's own. keep_lowest: the lowest losses of each batch, all along (Jiang et al. 2018, Han et al.
    2018, without their two nets). mixture: clips that a mixture of two Gaussians on each clip's averaged loss takes for
    clean (DivideMix, Li et al. 2020: its rule of division, without its two nets and mixed samples). inverse_frequency:
    one over the share of the clip's topic."""

    keep_share: float = Field(0.6, gt=0.0, le=1.0)
    """Share of each batch that keep_lowest keeps."""

    threshold: float = Field(0.5, ge=0.0, le=1.0)
    """Of mixture: a clip counts where its probability of being clean is at least this."""

    decay: float = Field(0.7, ge=0.0, lt=1.0)
    """Of mixture: how much of a clip's average loss is kept in each visit."""

    warmup_steps: int = Field(24, ge=1)
    """Of mixture: steps before the first fit, in which all clips count."""

    refit_every: int = Field(24, ge=1)
    """Of mixture: steps between two fits."""


class CellConfig(Config):
    """One training run, in memory and on one core."""

    corpus: CorpusConfig = CorpusConfig(num_train=1500, num_meta=512, num_val=256, num_test=512)
    """The clips that are learned from; the cell's seed takes the place of its seed."""

    start: Literal["pretrained", "scratch"] = "pretrained"
    """Whether the model starts from the study's pretrained weights or from random ones."""

    pairs: Literal["all", "true", "first_source"] = "all"
    """all: every training pair; true: an oracle's choice, without swapped, wrong and misread captions; first_source:
    without those of the source that misreads."""

    captions: str | None = None
    """Name of the generated captions that are mixed in; null takes the corpus's own alone."""

    generated_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the reads of a clip that get its generated caption, where there is one; without a meaning where
    objective.generated_share reads both."""

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

    early_every: AddedLater[int] = Field(0, ge=0)
    """Steps between further evaluations up to step `early_until`, where early stopping chooses; 0 has none. They are on
    val alone: of them only the one that is reported is tested, by the weights of then."""

    early_until: AddedLater[int] = Field(150, ge=0)
    """Last step of the further evaluations."""

    gallery_size: AddedLater[int] = Field(0, ge=0)
    """Clips among which a caption's is looked up: val and test are cut into galleries of so many; 0 is all of them."""

    tests: AddedLater[bool] = True
    """Whether test is evaluated; a run that only chooses settings needs val alone."""

    meta_copies: AddedLater[int] = Field(0, ge=0)
    """How often the meta-set's clips join the training clips in each pass."""

    rule: AddedLater[RuleConfig] = RuleConfig()
    """A rule that weighs clips in place of `weighting`."""

    reverse_share: AddedLater[float] = Field(0.0, ge=0.0, le=1.0)
    """Share s of the reverse cross-entropy in the loss, (1 - s) CE + s RCE with log 0 = -4: symmetric cross-entropy
    (Wang et al. 2019); 0 is the objective as it is."""

    logit_scale: AddedLater[float | None] = Field(None, gt=0.0)
    """Scale of the logits, frozen; null lets it start as the model's and be learned."""

    told_wrong: AddedLater[float | None] = Field(None, ge=0.0, le=1.0)
    """Where set, every clip has a generated caption of a narrator whose errors are known: its facts in plain words, one
    of them false at this rate. In place of `captions`."""

    told_topics: AddedLater[Literal["all", "rare"]] = "all"
    """Which topics' clips that narrator tells of: all, or the rarer half."""

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
        self._check_options()
        return self

    def _check_options(self) -> None:
        weighting = self.weighting
        require_no_trivial_optimum(weighting)
        if self.meta.learns_margin:
            require_learnable_margin(self.meta, self.objective, weighting)
        if self.rule.kind != "none" and weighting.kind != "uniform":
            raise ValueError(f"rule {self.rule.kind} is in place of weighting: got {weighting.kind}, wanted uniform")
        if self.reverse_share and (self.objective.margin or self.objective.loss != "softmax"):
            raise ValueError("reverse_share is of loss softmax without a margin")
        if self.objective.mixes_captions and not self.has_generated_captions:
            raise ValueError("objective.generated_share: no narrator, wanted captions or told_wrong")
        if self.objective.learns_share:
            require_learnable_share(weighting)
        if self.reverse_share and self.objective.mixes_captions:
            raise ValueError("reverse_share is of one text: got objective.generated_share")
        if self.reverse_share and (weighting.kind == "learned" or self.meta.learns_margin):
            got = "weighting learned" if weighting.kind == "learned" else f"meta.margin {self.meta.margin}"
            raise ValueError(f"reverse_share is a control by itself: got {got}")
        if self.told_wrong is not None and self.captions:
            raise ValueError(f"told_wrong and captions {self.captions}: wanted one narrator")
        for name, count in (("num_val", self.corpus.num_val), ("num_test", self.corpus.num_test)):
            if self.gallery_size and count % self.gallery_size:
                raise ValueError(f"gallery_size {self.gallery_size} does not divide corpus.{name} {count}")

    @property
    def has_generated_captions(self) -> bool:
        """Whether a part of the reads gets a generated caption."""
        return bool(self.captions) or self.told_wrong is not None

    @property
    def tested_steps(self) -> set[int]:
        """After how many steps val and, where asked, test are evaluated."""
        return {round(self.num_steps * (number + 1) / self.num_evaluations) for number in range(self.num_evaluations)}

    @property
    def evaluated_steps(self) -> set[int]:
        """After how many steps val is evaluated."""
        early = range(self.early_every, min(self.early_until, self.num_steps) + 1, self.early_every or 1)
        return self.tested_steps | (set(early) if self.early_every else set())

    @property
    def is_meta_learned(self) -> bool:
        """Whether the run needs a meta-set."""
        learns_weights = self.weighting.kind == "learned" and self.weighting.learner == "meta"
        return learns_weights or self.meta.learns_margin or self.objective.learns_share

    @property
    def seeded_corpus(self) -> CorpusConfig:
        """The corpus of this cell's seed."""
        return with_overrides(self.corpus, {"seed": self.seed})


def pictures_of(corpus: CorpusConfig) -> CorpusConfig:
    """Return the corpus with the same pictures and true captions: what spoils captions changes no pixel, but where
    labels go by it.
    """
    if corpus.has_labels:
        return corpus
    return with_overrides(corpus, dict.fromkeys(SPOILING_RATES, 0.0))


def cell_hash(cell: CellConfig, start: dict[str, Any]) -> str:
    """Name a cell by everything its result depends on; `start` describes what the model starts from."""
    record = {"version": CELL_VERSION, "cell": decisive_values(cell), "start": start}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:20]
