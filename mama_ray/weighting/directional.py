"""The directional pass of forward mode, with the parts of its primal that the training forward has computed already.

A linear layer's tangent is W x' + W' x: two products beside the primal's one. The training forward's outputs of linear
layers are kept (`tape.py`), so the directional pass needs two thirds of the products, and the primal is that of the
training pass itself, whatever its kernels and its precision. What lies between the products is computed anew: cheap.
A pass over a part of the clips takes their rows of what was kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from mama_ray.models.low_rank import low_rank_linear
from mama_ray.weighting.chosen_clips import ChosenClips
from mama_ray.weighting.tangents import (
    ADDITIONS,
    ARITHMETIC,
    attention,
    dual,
    layer_norm,
    linear_tangent,
    low_rank_tangent,
    tangent_of,
    unpack,
)
from mama_ray.weighting.tape import Tape


@contextmanager
def directional_pass(tape: Tape | None = None, chosen: ChosenClips | None = None) -> Iterator[None]:
    """Open a level of dual numbers without gradient; with a tape, the pass inside must be the recorded one, over all
    clips or over the `chosen` ones."""
    constants = nullcontext() if tape is None else tape.constants.replay(chosen)
    with torch.no_grad(), forward_ad.dual_level(), _DirectionalPass(tape, chosen), constants:
        yield
    if tape is not None:
        tape.require_end()


class _DirectionalPass(TorchFunctionMode):
    def __init__(self, tape: Tape | None, chosen: ChosenClips | None):
        super().__init__()
        self._tape, self._chosen = tape, chosen
        self._awaits_sum: _AwaitsSum | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear:
            return self._linear(F.linear, linear_tangent, *args, **kwargs)
        if func is low_rank_linear:
            return self._linear(low_rank_linear, low_rank_tangent, *args, **kwargs)
        if func in ADDITIONS and self._awaits_sum is not None:
            waiting = self._awaits_sum
            others = [arg for arg in args if arg is not waiting.stand_in]
            if len(others) == 1:
                self._awaits_sum = None
                return waiting.add(others[0], self._chosen)
        if func in ARITHMETIC and len(args) == 2 and not kwargs:
            return ARITHMETIC[func](*args)
        if func is F.layer_norm:
            return layer_norm(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _linear(
        self,
        function: Callable,
        rule: Callable,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *more: Any,
    ) -> Tensor:
        primals, tangents = unpack(inputs, weight, bias, *more)
        tangent = rule(primals, tangents)
        if self._tape is None:
            return dual(function(*primals), tangent)
        entry = self._tape.take()
        if not entry.is_sum:
            return dual(_rows_of(entry.value, self._chosen, inputs.shape[:-1]), tangent)
        # Its primal is not known and not needed; a NaN would show a use that the recording did not see.
        stand_in = entry.value.new_full((), torch.nan).expand(*inputs.shape[:-1], len(weight))
        self._awaits_sum = _AwaitsSum(stand_in, tangent, entry.value)
        return stand_in


class _AwaitsSum(NamedTuple):
    """A linear layer's output of which only the tangent and the coming sum are known."""

    stand_in: Tensor
    tangent: Tensor | None
    total: Tensor

    def add(self, other: Tensor | float, chosen: ChosenClips | None) -> Tensor:
        shape = self.stand_in.shape
        if isinstance(other, Tensor):
            shape = torch.broadcast_shapes(shape, other.shape)
        total = _rows_of(self.total, chosen, shape)
        tangents = [t for t in (self.tangent, tangent_of(other)) if t is not None]
        if not tangents:
            return total
        tangent = tangents[0] if len(tangents) == 1 else tangents[0] + tangents[1]
        return dual(total, tangent.expand_as(total))


def _rows_of(whole: Tensor, chosen: ChosenClips | None, shape: torch.Size) -> Tensor:
    """Return what of a kept tensor belongs to a pass in which it starts with the axes `shape`."""
    return whole if chosen is None or not shape else chosen.rows_of(whole, shape[0])
