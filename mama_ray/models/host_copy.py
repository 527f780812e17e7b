"""Copies of a training run's tensors in host memory: what a checkpoint is written from while training goes on."""

from typing import Any

import torch
from torch import Tensor


def copy_to_host(tree: Any) -> Any:
    """Copy all tensors of nested dicts, lists and tuples to CPU memory of their own; other values pass as they are.

    Tensors that are one (tied weights) stay one in the copy.
    """
    return _copied(tree, {})


def _copied(value: Any, known: dict[tuple, Tensor]) -> Any:
    if isinstance(value, Tensor):
        value = value.detach()
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype)
        if place not in known or not value.numel():  # empty tensors all lie at address 0
            known[place] = value.to("cpu", copy=True, memory_format=torch.contiguous_format)
        return known[place]
    if isinstance(value, dict):
        return {key: _copied(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, known) for item in value)
    return value
