"""Which head answers questions, and its sizes; without torch, as a command line names it."""

from typing import Literal

from pydantic import Field

from mama_ray.config import Config

HeadKind = Literal["classification", "similarity", "options", "own"]


class HeadConfig(Config):
    """A head on a dual encoder; ours, published for none."""

    kind: HeadKind = "classification"
    """classification: a logit per answer of the list; similarity: the answers of the list are encoded as texts and
    compared (VGT's product); options: a scalar per option of a multiple choice; own: the backbone answers by itself, as
    VIOLET and VGT do."""

    hidden_dim: int = Field(256, ge=1, le=1 << 16)
    """Width of the hidden layer."""

    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Rate in training, before and after the hidden layer."""
