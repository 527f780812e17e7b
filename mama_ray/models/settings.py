"""What is said of a model without torch: which part is trained, as a command line names it, and how it is asked."""

from typing import Literal

from pydantic import Field

from mama_ray.config import Config

QuestionForm = Literal["release", "fitted"]
"""How a multiple choice becomes tokens: as in the backbone's release, or as models of earlier versions learned it."""


class LoraConfig(Config):
    """Low-rank adapters (LoRA, arXiv 2106.09685): linear layers keep their weights and learn a product of two small
    matrices beside them. What is saved and exported has them merged."""

    rank: int = Field(8, ge=1, le=1 << 12)
    """Width of the product, at most that of the layers."""

    alpha: float | None = Field(None, gt=0)
    """Factor of the product times the rank; null is twice the rank."""

    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of a layer's inputs that the product does not see in training."""

    targets: tuple[str, ...] | None = None
    """Patterns of the linear layers that get adapters, e.g. [vision_model.*.mlp, "*.q_proj"]; null takes those of all
    attention in the stacked layers of the model."""

    trained: tuple[str, ...] | None = None
    """Patterns of parameters that are trained themselves beside the adapters; null takes the logit scale and bias,
    what makes a model of images one of clips (temporal embeddings and layers, video proxies), and all weights that
    model.pretrained had none for, which get no adapters."""
