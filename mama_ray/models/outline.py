"""Models without memory for their weights: names and shapes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _WithoutFilling(TorchFunctionMode):
    """Leaves new weights as they are: filling those without memory would import torch's compiler, 4 seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == nn.init.__name__:
            return (*args, *(kwargs or {}).values())[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Build modules in this block without memory for their weights."""
    with torch.device("meta"), _WithoutFilling():
        yield
