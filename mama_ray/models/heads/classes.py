"""Heads that tell a clip's classes: a linear layer per kind, in the model's folder beside its own files.

class_head.json has the sizes and the names of actions, head.safetensors the weights; config.json and model.safetensors
stay what they are without a head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.data.classes.names import ACTION, KINDS
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoder, PooledEncoder
from mama_ray.models.heads.headed import feature_dim
from mama_ray.models.heads.settings import NumClasses
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.weight_files import (
    HEAD_WEIGHTS,
    State,
    compare_states,
    name_some,
    read_json,
    read_safetensors,
    write_json,
    write_safetensors,
)
from mama_ray.storage.small_files import check_form

CLASS_HEAD_CONFIG = "class_head.json"
_INIT_STD = 0.01  # as LaViLa's heads start


class ClassHeads(nn.Module):
    """Dropout, then a linear layer for each kind, of `sizes` classes, on features of `dim` channels."""

    def __init__(self, dim: int, sizes: Mapping[str, int], dropout: float = 0.5) -> None:
        super().__init__()
        self.dim, self.sizes = dim, dict(sizes)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleDict({kind: nn.Linear(dim, size) for kind, size in sizes.items()})
        for layer in self.layers.values():
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=_INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of all kinds side by side; `split_kinds` takes them apart."""
        dropped = self.dropout(features)
        return torch.cat([layer(dropped) for layer in self.layers.values()], dim=1)


def split_kinds(logits: Float[Tensor, "batch classes"], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the logits of each kind: (batch, classes of the kind)."""
    return dict(zip(sizes, logits.split(list(sizes.values()), dim=1), strict=True))


def clip_feature(encoder: DualEncoder, frames: Any) -> Float[Tensor, "batch dim"]:
    """Return what the heads read: the feature before the projection where the model has one, else that of the joint
    space."""
    return encoder.pool_video(frames) if isinstance(encoder, PooledEncoder) else encoder.encode_video(frames)


def clip_feature_dim(encoder: DualEncoder) -> int:
    """Return its channels."""
    return encoder.pooled_width if isinstance(encoder, PooledEncoder) else feature_dim(encoder)


class ClassHeadFile(pydantic.BaseModel):
    """The form of class_head.json."""

    model_config = pydantic.ConfigDict(frozen=True)

    dim: int = pydantic.Field(ge=1, le=1 << 20)
    sizes: dict[str, NumClasses] = pydantic.Field(min_length=1, max_length=len(KINDS))
    """How many outputs each kind has."""
    dropout: float = pydantic.Field(ge=0.0, lt=1.0)
    actions: tuple[str, ...] = ()
    """The names "verb:noun" of the actions, where they are pairs, by number; "" of an output that has none."""

    @pydantic.field_validator("sizes")
    @classmethod
    def _kinds_are_known(cls, sizes: dict[str, int]) -> dict[str, int]:
        if unknown := [kind for kind in sizes if kind not in KINDS]:
            raise ValueError(f"{unknown[0]!r:.60} is none of {', '.join(KINDS)}")
        return sizes

    @pydantic.model_validator(mode="after")
    def _actions_are_of_the_outputs(self) -> "ClassHeadFile":
        num_outputs = self.sizes.get(ACTION)
        if self.actions and num_outputs not in (None, len(self.actions)):
            raise ValueError(f"{len(self.actions)} names of {num_outputs} actions")
        return self


@dataclass(frozen=True)
class CapturedClassHead:
    """Heads' weights and the content of their class_head.json, apart from the heads."""

    state: State
    content: dict[str, Any]


def capture_class_head(head: ClassHeads, actions: Sequence[str], buffers: Buffers | None = None) -> CapturedClassHead:
    """Copy heads to host memory. actions: names by number; an output beyond them, of a class that came in no file of
    the run, gets a name that no benchmark has."""
    padding = head.sizes.get(ACTION, 0) - len(actions)
    names = (*actions, *[""] * padding) if actions else ()
    file = ClassHeadFile(dim=head.dim, sizes=head.sizes, dropout=head.dropout.p, actions=names)
    return CapturedClassHead(copy_to_host({"head": dict(head.state_dict())}, buffers)["head"], file.model_dump())


def write_class_head(captured: CapturedClassHead, directory: Path) -> None:
    """Write heads beside their model; class_head.json comes last."""
    (directory / CLASS_HEAD_CONFIG).unlink(missing_ok=True)
    write_safetensors(captured.state, directory / HEAD_WEIGHTS)
    write_json(captured.content, directory / CLASS_HEAD_CONFIG)


def has_class_head(directory: Path) -> bool:
    """Tell whether a model's folder has heads that tell classes."""
    return (directory / CLASS_HEAD_CONFIG).is_file()


def read_class_head(directory: Path) -> ClassHeadFile:
    """Return what heads a model's folder has, without their weights; UserError for a file that says no heads."""
    path = directory / CLASS_HEAD_CONFIG
    return check_form(ClassHeadFile, read_json(path), path)


@dataclass(frozen=True)
class Classifier:
    """A dual encoder with its heads; `actions` are the names "verb:noun" of its actions, or ()."""

    encoder: DualEncoder
    head: ClassHeads
    actions: tuple[str, ...] = ()

    def classify(self, frames: Any) -> dict[str, Float[Tensor, "batch classes"]]:
        """Return a logit for every class of each kind, of what the encoder's `encode_video` takes."""
        return split_kinds(self.logits(frames), self.head.sizes)

    def logits(self, frames: Any) -> Float[Tensor, "batch classes"]:
        """Return the logits of all kinds side by side."""
        return self.head(clip_feature(self.encoder, frames))


def load_classifier(directory: Path, **overrides: Any) -> Classifier:
    """Load a model's folder with heads, in evaluation mode; UserError where it has none or they do not fit.

    overrides: fields of the model's config that are replaced, as `from_pretrained` takes them.
    """
    if not has_class_head(directory):
        raise UserError(
            "the model tells no classes",
            got=f"{directory} without {CLASS_HEAD_CONFIG}",
            wanted="a folder that a run with task.kind classification has written",
        )
    file = read_class_head(directory)
    encoder = from_pretrained(directory, **overrides)
    if (dim := clip_feature_dim(encoder)) != file.dim:
        raise UserError(
            "the class heads are not of this model", got=f"features of {file.dim}", wanted=f"{dim} channels"
        )
    head = ClassHeads(file.dim, file.sizes, file.dropout)
    state = read_safetensors(directory / HEAD_WEIGHTS)
    report = compare_states(head.state_dict(), state)
    if wrong := [*report.missing, *report.unexpected, *report.mismatched]:
        raise UserError(
            f"weights of {directory / HEAD_WEIGHTS} do not fit the class heads",
            got=name_some(wrong),
            wanted=f"those of {CLASS_HEAD_CONFIG}",
        )
    head.load_state_dict(state)
    return Classifier(encoder.eval(), head.eval(), file.actions)
