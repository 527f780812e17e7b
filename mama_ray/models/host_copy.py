"""Copies of a training run's tensors in host memory: what a checkpoint is written from while training goes on."""

from typing import Any

import torch
from torch import Tensor

Buffers = dict[str, Tensor]
"""Host memory of earlier copies by place in the tree. New pages cost more than the copy, so a run keeps them."""


def copy_to_host(tree: Any, buffers: Buffers | None = None) -> Any:
    """Copy all tensors of nested dicts, lists and tuples to CPU memory of their own; other values pass as they are.

    Tensors that are one (tied weights) stay one in the copy. `buffers` are filled, and used again by the next copy of
    a tree of the same form: the copy before must no longer be needed then.
    """
    copied = _copied(tree, "", {} if buffers is None else buffers, {})
    if torch.cuda.is_initialized():  # a run on the CPU must not begin to use a GPU that is there
        torch.cuda.synchronize()  # copies from a GPU to pinned memory are only begun
    return copied


def _copied(value: Any, place: str, buffers: Buffers, known: dict[tuple, Tensor]) -> Any:
    if isinstance(value, Tensor):
        value = value.detach()
        memory = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype)
        if memory not in known or not value.numel():  # empty tensors all lie at address 0
            buffer = buffers.get(place)
            if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                buffer = buffers[place] = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            known[memory] = buffer.copy_(value, non_blocking=True)
        return known[memory]
    if isinstance(value, dict):
        return {key: _copied(item, f"{place}/{key}", buffers, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, f"{place}/{i}", buffers, known) for i, item in enumerate(value))
    return value
