"""Which head answers questions, and its sizes; without torch, as a command line names it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mama_ray.config import Config
from mama_ray.data.classes.names import ACTION, MAX_CLASSES

HeadKind = Literal["classification", "similarity", "options", "own"]
ClassKind = Literal["verb", "noun", "action"]
NumClasses = Annotated[int, Field(ge=1, le=MAX_CLASSES)]


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


class ClassHeadConfig(Config):
    """A linear layer per kind of class on the feature of a clip, before the projection where the model has one."""

    kinds: tuple[ClassKind, ...] = Field(("verb", "noun", "action"), min_length=1)
    """What is told of a clip, each by a head of its own: three as LaViLa fine-tunes EPIC-KITCHENS-100 (arXiv
    2212.04501), or action alone. Their losses are summed."""

    num_classes: dict[ClassKind, NumClasses] = {}
    """Classes of a kind, where they are more than data.classes has: EPIC-KITCHENS-100 has 97 verbs and 300 nouns, of
    which some come in no file. Of a kind that is not told they are not read."""

    dropout: float = Field(0.5, ge=0.0, lt=1.0)
    """Rate in training, before the layers."""

    @property
    def measured(self) -> ClassKind:
        """The kind whose accuracy a run is selected by: action where it is told, else the last."""
        return ACTION if ACTION in self.kinds else self.kinds[-1]

    @model_validator(mode="after")
    def _kinds_are_told_once(self) -> "ClassHeadConfig":
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds names one twice: {', '.join(self.kinds)}")
        return self
