"""How losses become weights, and how that is learned; without torch, as a command line names it."""

import re
from typing import Literal

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config, Location
from mama_ray.data.clip import CAPTION_SOURCES
from mama_ray.errors import UserError, unknown_name
from mama_ray.objectives.settings import ContrastiveConfig

Method = Literal["forward_mode", "finite_difference", "central_difference", "second_order"]

LOSSES = ("loss", "loss_video_to_text", "loss_text_to_video", "average_loss")
"""Inputs of the weight net that are losses of the clip."""
OF_THE_CONTRAST = ("loss_video_to_text", "loss_text_to_video", "cosine")
COMPUTED = (*LOSSES, "cosine")
"""Inputs that a step takes from its own pass; every other one is a column of numbers or a category of the clip."""
_OF_THE_INDEX = ("topic", "source")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # which metrics are named by
_MAX_VALUES = 256  # of all categories: each is a weight per hidden unit


class WeightingConfig(Config):
    """How per-sample losses become sample weights."""

    kind: Literal["uniform", "focal", "self_paced", "learned"] = "learned"
    """uniform: plain mean; focal: (1 - p)^gamma; self_paced: easy samples first; learned: the weight net."""

    learner: Literal["meta", "joint"] = "meta"
    """What trains the weight net: the meta-set (bi-level), or the training loss itself (a degenerate control, with
    normalisation sum_global alone)."""

    hidden_dim: int = Field(64, ge=1)
    """Width of the weight net's hidden layer."""

    standardise: bool = False
    """Whether the weight net sees losses standardised over the global batch instead of raw ones."""

    inputs: AddedLater[tuple[str, ...]] = ("loss",)
    """What the weight net sees of a clip, by name, several at once. loss: what the weight multiplies;
    loss_video_to_text, loss_text_to_video: either direction of the contrast; cosine: of the clip and its caption, by
    the model as it is; average_loss: of the clip's visits so far (average_decay). Any other name is a category, if
    `categories` has it, or else a column of numbers of `features`. Losses are raw, or standardised as `standardise`
    says; cosine and numbers are always standardised over the global batch; a category is a 0 or 1 for each value. The
    loss alone is the default: on random faults nothing else gained (docs/study.md, inputs). Where captions come from
    several sources, let the net see which: no loss tells a source that is wrong the same way each time (a careless
    source)."""

    features: AddedLater[Location[str | None]] = None
    """CSV or Parquet file with column clip_id and a column per further input: numbers, as the cosine by a pretrained
    model or the agreement with a generated caption, or text of a category. Every training clip has a row."""

    categories: AddedLater[dict[str, tuple[str, ...]]] = {}
    """Values of each category among the inputs, e.g. {topic: [cooking, sports]}; a clip with any other value, or none,
    is of one class more. A category is a column of `features`, else topic, the clip's of the index, or source, that of
    the caption which was drawn (human, generated, rephrased, asr)."""

    average_decay: AddedLater[float] = Field(0.8, ge=0.0, lt=1.0)
    """Decay of average_loss from one visit of a clip to the next; the first visit's loss is its start. 4 bytes per clip
    are kept by every worker, and in checkpoints."""

    normalisation: Literal["sum_global", "none", "l2"] = "sum_global"
    """sum_global: weights sum to 1 over the global batch; none: divided by the batch size (Meta-Weight-Net);
    l2: divided by their L2 norm and the batch size (the MAMA release's real step)."""

    weighted_term: AddedLater[Literal["sum", "each", "contrastive", "task"]] = "sum"
    """What a weight multiplies where there is a task loss: sum: contrastive_i + eta * task_i; each: either term by a
    weight of its own, from its own loss; contrastive, task: that term alone, the other counts with its mean."""

    focal_gamma: float = Field(1.0, ge=0.0)
    """Exponent of the focal weighting."""

    self_paced_start: float = Field(0.5, gt=0.0, le=1.0)
    """Share of each batch that self-paced learning keeps at the start; it grows linearly to 1 at the end."""

    @property
    def sees_more(self) -> bool:
        """Whether the weight net sees anything but the loss."""
        return self.inputs != ("loss",)

    @property
    def is_joint(self) -> bool:
        """Whether a weight net is trained on the training loss itself, without a meta-set."""
        return self.kind == "learned" and self.learner == "joint"

    @property
    def columns(self) -> tuple[str, ...]:
        """The inputs that a batch brings along (`ClipBatch.weight_inputs`): numbers and categories, in order."""
        return tuple(name for name in self.inputs if name not in COMPUTED)

    @model_validator(mode="after")
    def _inputs_are_known(self) -> "WeightingConfig":
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs: got {list(self.inputs)}, wanted at least one name, each once")
        if strange := [name for name in self.inputs if not _NAME.fullmatch(name)]:
            raise ValueError(f"inputs: got {strange[0]!r}, wanted letters, digits, _, . and - as a column's name")
        if self.sees_more and self.kind != "learned":
            raise ValueError(f"inputs are what a weight net sees: got kind {self.kind}, wanted learned")
        if self.sees_more and self.weighted_term != "sum":
            raise ValueError(f"inputs beside loss are a clip's: got weighted_term {self.weighted_term}, wanted sum")
        if strange := sorted(set(self.categories) - set(self.columns)):
            raise ValueError(f"categories: {strange[0]} is none of the inputs {', '.join(self.inputs)}")
        for name, values in self.categories.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"categories: {name} wants at least one value, each once: got {list(values)}")
        if (count := sum(map(len, self.categories.values()))) > _MAX_VALUES:
            raise ValueError(f"categories: got {count} values, wanted at most {_MAX_VALUES}: leave rare ones out")
        return self

    @model_validator(mode="after")
    def _columns_are_declared(self) -> "WeightingConfig":
        for name in self.columns:
            if name in _OF_THE_INDEX and name not in self.categories:
                raise ValueError(f"inputs: {name} is a category: give its values, categories {{{name}: [...]}}")
        return self


def require_known_sources(weighting: WeightingConfig) -> None:
    """Raise ValueError for a category of `source` that no caption of an index can be."""
    if weighting.features is None:  # else it may be a column of that, of any values
        for value in weighting.categories.get("source", ()):
            if value not in CAPTION_SOURCES:
                raise unknown_name("source of weighting.categories", value, CAPTION_SOURCES)


class InnerStepConfig(Config):
    """The lookahead step of the bi-level problem."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Map of the lookahead: plain SGD, or the step that AdamW would take from its state, with the whole derivative of
    that. Decoupled weight decay is no part of it: it does not depend on the weights. With lr that of the run, adam did
    as well in the controlled study as a tuned sgd (docs/study.md, adam)."""

    lr: float = Field(0.05, ge=0.0)
    """Inner learning rate: the first thing to sweep, since it decides which way the weights slope. With `relative` it
    is the inner step's norm as a fraction of the parameters' norm. An Adam step moves every weight by about `lr`: with
    `adam` a new run has at most ten times optim.lr, so the default, which is SGD's, is refused there."""

    relative: bool = False
    """Whether `lr` is a fraction of the parameter norm instead of a factor of the gradient. A step of fixed length does
    not move along itself, which its derivative knows."""

    parameters: AddedLater[tuple[str, ...]] = ()
    """Patterns of the trained parameters that the lookahead moves, as model.freeze has them; empty is all of them. The
    hypergradient is exact for such a lookahead, and its passes begin at the first layer that one lies in: for models
    whose last layers decide. `relative` is by the norm of these parameters."""


class MetaConfig(Config):
    """The bi-level step that trains the weight net on the meta-set."""

    inner: InnerStepConfig = InnerStepConfig()
    """The lookahead."""

    arrangement: Literal["faithful", "shared"] = "shared"
    """faithful: the batch is weighted anew after the meta step (a further backward); shared: its gradient is reused."""

    hypergradient: Method = "forward_mode"
    """How the directional derivatives are found; forward_mode is exact and needs no second-order graph."""

    meta_every: int = Field(2, ge=1)
    """Steps between two meta steps."""

    batch_size: int = Field(32, ge=1)
    """Clips of the meta-set in one meta step, over all workers."""

    gradient_decay: AddedLater[float] = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the moving average of the meta gradient over the meta steps; 0 takes each by itself. No pass is added,
    but memory of the parameters' size; 0.6 halves the noise of the meta batch, but what is averaged was taken at
    earlier parameters."""

    tangent_share: AddedLater[float] = Field(1.0, gt=0.0, le=1.0)
    """Share of a batch's clips, drawn anew in each meta step, whose features' tangents the hypergradient is made of: 1
    is exact; 0.5, 0.25, ... (one of two, of four) an estimate with the right mean, cheaper. forward_mode alone."""

    margin: AddedLater[Literal["fixed", "scalar", "per_sample"]] = "fixed"
    """fixed: objective.margin; scalar: a signed margin, one for all, learned on the meta-set from objective.margin on;
    per_sample: one of each sample, by a small net of its loss without margin. Learned by the same directional pass, at
    meta steps, whatever the weights are; the meta loss is then without margin. fixed does better: docs/study.md,
    experiment margin_dose."""

    margin_lr: AddedLater[float] = Field(3e-3, gt=0.0)
    """Learning rate of a learned margin (AdamW without decay), on the inverse hyperbolic tangent of its share of
    margin_limit."""

    margin_limit: AddedLater[float] = Field(0.5, gt=0.0, lt=1.5)
    """Angle in radians that a learned margin stays below, to either side of 0."""

    lr: float = Field(3e-3, gt=0.0)
    """Learning rate of the weight net (AdamW)."""

    weight_decay: float = Field(1e-4, ge=0.0)
    """Weight decay of the weight net, AdamW's decoupled. A run that began when it was part of the gradient goes on
    so."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> "MetaConfig":
        one_of = 1 / self.tangent_share
        if abs(one_of - round(one_of)) > 1e-3:
            raise ValueError(f"tangent_share: got {self.tangent_share:g}, wanted 1 over a whole number, as 0.5, 0.25")
        if self.tangent_share < 1 and self.hypergradient != "forward_mode":
            raise ValueError(f"tangent_share below 1 is of forward_mode alone: got hypergradient {self.hypergradient}")
        return self

    @property
    def learns_margin(self) -> bool:
        """Whether the margin is learned on the meta-set."""
        return self.margin != "fixed"


def require_learnable_margin(meta: MetaConfig, objective: ContrastiveConfig | None, weighting: WeightingConfig) -> None:
    """Raise ValueError where a margin cannot be learned."""
    if objective is None or objective.ranks_by_cosine:
        got = "task.contrast false" if objective is None else f"objective.loss {objective.loss}"
        raise ValueError(f"meta.margin {meta.margin} is of a contrast with an angular margin: got {got}")
    if objective.close_negatives == "close_too":
        raise ValueError(f"meta.margin {meta.margin}: got objective.close_negatives close_too, wanted untouched")
    if abs(objective.margin) >= meta.margin_limit:
        raise ValueError(
            f"meta.margin {meta.margin} starts at objective.margin: got {objective.margin:g}, wanted less than "
            f"meta.margin_limit = {meta.margin_limit:g}"
        )
    if weighting.weighted_term != "sum":
        raise ValueError(
            f"meta.margin {meta.margin}: got weighting.weighted_term {weighting.weighted_term}, wanted sum"
        )
    if weighting.is_joint:
        raise ValueError(f"meta.margin {meta.margin} needs a meta-set: got weighting.learner joint, wanted meta")


def require_learnable_share(weighting: WeightingConfig) -> None:
    """Raise ValueError where the shares of generated captions cannot be learned."""
    if weighting.is_joint:
        raise ValueError("objective.generated_share learned needs a meta-set: got weighting.learner joint, wanted meta")


def require_no_trivial_optimum(weighting: WeightingConfig) -> None:
    """Raise UserError where a weight net on the training loss has its best weights whatever the clips are.

    Undivided, all of them at zero take the loss to zero; of one L2 norm, all of it on one clip takes it to one over the
    root of their number. Runs that began so go on: this is asked of new ones alone.
    """
    if weighting.is_joint and weighting.normalisation != "sum_global":
        raise UserError(
            "weighting.learner joint has a trivial optimum, whatever the clips are",
            got=f"weighting.normalisation {weighting.normalisation}",
            wanted="sum_global, or weighting.learner meta",
        )
