"""A head in its model's folder: head.json (kind, sizes, answers) and head.safetensors beside config.json.

The model's own files stay what they are without a head, so retrieval, search and export read the folder as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pydantic
import torch
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.models.heads.head import AnswerHead, SimilarityHead, build_head
from mama_ray.models.heads.settings import HeadConfig, HeadKind
from mama_ray.models.host_copy import Buffers, copy_to_host
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

HEAD_CONFIG = "head.json"


@runtime_checkable
class Tokenizes(Protocol):
    """What makes token ids of answers."""

    def __call__(self, texts: Sequence[str], /) -> np.ndarray: ...


class _HeadFile(HeadConfig):
    dim: int = pydantic.Field(ge=1, le=1 << 20)
    """Channels of the features that the head was made for."""
    answers: tuple[str, ...] = ()
    """The answer list, in the order of the logits; empty for options."""


@dataclass(frozen=True)
class CapturedHead:
    """A head's weights and the content of its head.json, apart from the head."""

    state: State
    content: dict[str, Any]


def describe_head(head: AnswerHead, answers: Sequence[str]) -> dict[str, Any]:
    """Return the content of head.json."""
    if len(answers) != head.num_answers:
        raise UserError("answers of a head", got=len(answers), wanted=head.num_answers)
    return _HeadFile(**head.config.model_dump(), dim=head.dim, answers=tuple(answers)).model_dump(mode="json")


def capture_head(head: AnswerHead, answers: Sequence[str], buffers: Buffers | None = None) -> CapturedHead:
    """Copy a head to host memory, as `models.pretrained.capture_pretrained` copies its model."""
    state = copy_to_host({"head": dict(head.state_dict())}, buffers)["head"]
    return CapturedHead(state, describe_head(head, answers))


def write_head(captured: CapturedHead, directory: Path) -> None:
    """Write a head beside its model; head.json comes last."""
    (directory / HEAD_CONFIG).unlink(missing_ok=True)
    write_safetensors(captured.state, directory / HEAD_WEIGHTS)
    write_json(captured.content, directory / HEAD_CONFIG)


def has_head(directory: Path) -> bool:
    """Tell whether a model's folder has a head."""
    return (directory / HEAD_CONFIG).is_file()


def stored_head(directory: Path) -> tuple[HeadKind, tuple[str, ...]]:
    """Return the kind of the head in a model's folder and its list of answers; `own` and () where there is none."""
    if not has_head(directory):
        return "own", ()
    file = _read_file(directory / HEAD_CONFIG)
    return file.kind, file.answers


def _read_file(path: Path) -> _HeadFile:
    try:
        return _HeadFile.model_validate(read_json(path))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} is no head's config", got=f"{where}: {first['msg']}", wanted="one that we wrote"
        ) from None


def load_head(directory: Path, *, dim: int, tokenizer: Tokenizes | None = None) -> tuple[AnswerHead, tuple[str, ...]]:
    """Load the head of a model whose features have `dim` channels, with its answers; UserError where it does not fit.

    A head that compares answers needs the model's `tokenizer`.
    """
    file = _read_file(directory / HEAD_CONFIG)
    if file.dim != dim:
        raise UserError("the head is not of this model", got=f"features of {file.dim}", wanted=f"{dim} channels")
    head = build_head(HeadConfig(**file.model_dump(include=set(HeadConfig.model_fields))), dim, len(file.answers))
    fill_head(head, read_safetensors(directory / HEAD_WEIGHTS), source=str(directory / HEAD_WEIGHTS))
    if isinstance(head, SimilarityHead):
        if tokenizer is None:
            raise UserError("a head that compares answers needs the model's tokenizer", got=str(directory))
        set_answers(head, file.answers, tokenizer)
    return head, file.answers


def fill_head(head: AnswerHead, state: dict[str, Tensor], *, source: str) -> None:
    """Copy weights into a head; UserError where they are not exactly its."""
    report = compare_states(head.state_dict(), state)
    if wrong := [*report.missing, *report.unexpected, *report.mismatched]:
        raise UserError(f"weights of {source} do not fit the head", got=name_some(wrong), wanted="the head's own keys")
    head.load_state_dict(state)


def set_answers(head: SimilarityHead, answers: Sequence[str], tokenizer: Tokenizes) -> None:
    """Give a head that compares answers their token ids."""
    head.set_answers(torch.from_numpy(np.asarray(tokenizer(list(answers)))))
