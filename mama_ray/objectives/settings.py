"""What is asked of the contrastive loss; without torch, as a command line names it."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mama_ray.config import AddedLater, Config

Loss = Literal["softmax", "sigmoid", "max_margin", "adaptive_max_margin", "multi_similarity"]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]
# The cosines by which a positive pair is to lead, as published (LaViLa, EgoVLP, arXiv 2406.12256).
RANKING_MARGINS = {"max_margin": 0.2, "adaptive_max_margin": 0.4, "multi_similarity": 0.6}


class ContrastiveConfig(Config):
    """Contrastive loss with a subtractive angular margin (MAMA, arXiv 2407.03788)."""

    loss: AddedLater[Loss] = "softmax"
    """softmax: InfoNCE, which text of the global batch is the clip's, and the other way round; sigmoid: SigLIP's (arXiv
    2303.15343), whether a pair belongs together, asked of each pair by itself, with a learned bias beside the scale.
    Three rank by cosines, without a scale: max_margin, a positive pair leads each other one by a margin (EPIC-KITCHENS
    retrieval); adaptive_max_margin, by the margin times the pair's relevance (EgoVLP); multi_similarity, by the margin
    times the difference of relevances (SMS, arXiv 2406.12256). The last two read data.classes."""

    generated_scale: AddedLater[float | None] = Field(None, gt=0.0)
    """Scale (one over the temperature) of the logits of two samples whose texts were generated, fixed; those of one
    such and another have the geometric mean of it and the model's. LaViLa's two temperatures, both 1/0.07 = 14.2857 in
    its recipe, which is the plain loss. It is of loss softmax, and needs data.shares. null has one scale for all."""

    generated_share: AddedLater[_Share | Literal["learned"] | None] = None
    """Share g of the generated caption in the loss of each clip that has one beside its own text, (1 - g) l_own +
    g l_generated, both of them read in every epoch. learned: a g of each clip by a small net of the two losses, on the
    meta-set; it gained most in the controlled study (docs/study.md, chosen_captions). null reads one text of a clip, as
    data.captions or data.shares draw it. Of softmax and sigmoid."""

    ranking_margin: AddedLater[float | None] = Field(None, gt=0.0, le=2.0)
    """Margin of the ranking losses, in cosine; null is the published one: 0.2 of max_margin, 0.4 of
    adaptive_max_margin, 0.6 of multi_similarity. `margin` is another thing, an angle, and is 0 with them: it takes off
    what they ask for."""

    relevance_slack: AddedLater[float] = Field(0.1, ge=0.0)
    """Of multi_similarity: how far two texts of equal relevance may lie apart, in cosine, at no cost."""

    equal_relevance: AddedLater[float] = Field(1.1 / 240, ge=0.0)
    """Of multi_similarity: relevances that differ by no more count as equal."""

    logit_bias: AddedLater[float] = Field(-10.0, allow_inf_nan=False)
    """Start of the sigmoid loss's bias for a model that has none of its own; -10 is SigLIP's start from scratch. For a
    model that softmax trained, take minus the logit (scale times cosine) that lies between its positives and
    negatives. It is learned, and kept with the run, not with the model: no ranking depends on it."""

    margin: float = Field(0.0, gt=-math.pi / 2, lt=math.pi / 2)
    """Angle in radians taken off the positive pair; 0 is InfoNCE, the paper's range is 0.1 to 0.4. A negative one
    is added to the angle instead, as ArcFace does. No margin taken off helped in the controlled study (docs/study.md,
    experiments margin and methods); -0.1 gained there, and one run of ten with learned weights collapsed by it: a
    choice to be made on val."""

    obtuse_positives: Literal["acute_only", "always"] = "acute_only"
    """Whether a positive beyond 90 degrees keeps its plain cosine (the paper) or gets the margin too (the release)."""

    close_negatives: Literal["untouched", "close_too"] = "untouched"
    """Whether a negative closer than the margin gets the margin as well (an undocumented rule of the release)."""

    direction_reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum of the video-to-text and text-to-video losses (the release sums). Of the sigmoid loss the mean is
    SigLIP's: a clip has its positive pair and half of each negative one."""

    chunk_size: int = Field(0, ge=0)
    """Samples of the global batch that a worker compares its own with at a time: the loss then takes memory in
    proportion to it, not to the global batch, and compares twice, forward and backward. 0 compares with all at once;
    the losses are the same to rounding."""

    @property
    def margin_rules(self) -> dict[str, Any]:
        """What `apply_margin` wants to know."""
        return {
            "margin": self.margin,
            "acute_only": self.obtuse_positives == "acute_only",
            "close_negatives": self.close_negatives == "close_too",
        }

    @property
    def mixes_captions(self) -> bool:
        """Whether clips have a loss of two texts."""
        return self.generated_share is not None

    @property
    def learns_share(self) -> bool:
        """Whether the shares of the two are learned on the meta-set."""
        return self.generated_share == "learned"

    @property
    def ranks_by_cosine(self) -> bool:
        """Whether the loss is one of those that rank pairs by their cosines."""
        return self.loss in RANKING_MARGINS

    @property
    def needs_classes(self) -> bool:
        """Whether it reads how relevant a text is to another clip."""
        return self.loss in ("adaptive_max_margin", "multi_similarity")

    @property
    def lead(self) -> float:
        """The margin of a ranking loss."""
        return RANKING_MARGINS[self.loss] if self.ranking_margin is None else self.ranking_margin

    @model_validator(mode="after")
    def _options_are_of_their_losses(self) -> "ContrastiveConfig":
        if self.ranks_by_cosine and (self.margin != 0 or self.close_negatives == "close_too"):
            raise ValueError(
                f"loss {self.loss} asks a positive pair to lead by ranking_margin, of which an angular margin would "
                f"take off again: got margin {self.margin:g}, close_negatives {self.close_negatives}; wanted 0 and "
                "untouched"
            )
        if self.generated_scale is not None and self.loss != "softmax":
            raise ValueError(f"generated_scale is of loss softmax, not of {self.loss}")
        if self.mixes_captions and (self.ranks_by_cosine or self.generated_scale is not None):
            got = f"loss {self.loss}" if self.ranks_by_cosine else f"generated_scale {self.generated_scale:g}"
            raise ValueError(f"generated_share is of losses softmax and sigmoid with one scale: got {got}")
        if self.ranking_margin is not None and not self.ranks_by_cosine:
            raise ValueError(f"ranking_margin is of the losses {', '.join(RANKING_MARGINS)}, not of {self.loss}")
        for name in ("relevance_slack", "equal_relevance"):
            if self.loss != "multi_similarity" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of loss multi_similarity, not of {self.loss}")
        return self

    @model_validator(mode="after")
    def _close_negatives_need_a_margin_to_be_closer_than(self) -> "ContrastiveConfig":
        if self.margin < 0 and self.close_negatives == "close_too":
            raise ValueError("close_negatives close_too has no meaning with an additive margin (margin < 0)")
        return self
