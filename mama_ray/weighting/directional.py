"""The directional pass of forward mode, with the parts of its primal that the training forward has computed already.

A linear layer's tangent is W x' + W' x: two products beside the primal's one. The training forward's outputs of linear
layers are kept (`Tape`), so the directional pass needs two thirds of the products, and the primal is that of the
training pass itself, whatever its kernels and its precision. What lies between the products is computed anew: cheap.

No new memory while the training graph is alive, since autograd holds these tensors too: of a linear layer whose output
goes into a residual sum only, the sum is kept, which the next layer norm holds. Afterwards the tape is 9 tensors of a
layer's width where the graph was 17 to 20, and it shrinks as the directional pass goes on. With dropout between a
layer and its sum the output itself is kept, which the graph has no need of: one tensor more per such layer.

Softmax and layer norm have symmetric Jacobians, so their fused backward kernels are also their tangents.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from mama_ray.models.low_rank import low_rank_linear
from mama_ray.weighting.constants import ConstantParts

_ADDITIONS = (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)


class _Entry:
    """One linear layer's output, or the sum that it went into."""

    def __init__(self, output: Tensor):
        self.keep(output)

    def keep(self, value: Tensor, *, is_sum: bool = False) -> None:
        self.value, self.is_sum, self._version = value.detach(), is_sum, value._version

    def require_untouched(self) -> None:
        if self.value._version != self._version:
            raise RuntimeError("a linear layer's output was changed in place: forward_mode needs it as it was")


class Tape:
    """What the linear layers and the frozen parts of one forward pass gave, in order; recorded once, replayed once."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self.constants = ConstantParts()

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def record(self, model: nn.Module | None = None) -> Iterator[None]:
        """Keep what the linear layers inside the context give, and what the frozen parts of the model do."""
        with _Recording(self._entries):
            if model is None:
                yield
            else:
                with self.constants.record(model, self._entries):
                    yield

    def take(self) -> _Entry:
        """Return the next output and let go of it."""
        if not self._entries:
            raise AssertionError("the directional pass has more linear layers than the training pass")
        entry = self._entries.pop(0)
        entry.require_untouched()
        return entry

    def require_end(self) -> None:
        """Refuse a replay that was not the recorded pass."""
        assert not self._entries, "the directional pass has fewer linear layers than the training pass"


class _Recording(TorchFunctionMode):
    def __init__(self, entries: list[_Entry]):
        super().__init__()
        self._entries = entries
        # By identity. A sum may stand for an output while nothing else reads it; entries of frozen parts are let go.
        self._outputs: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._entry_of: WeakValueDictionary[int, _Entry] = WeakValueDictionary()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        is_addition = func in _ADDITIONS and not kwargs  # alpha would scale the tangent
        for value in _flattened((*args, *kwargs.values())):
            if id(value) in self._entry_of and self._outputs.get(id(value)) is value:
                self._note_use(value, result if is_addition else None)
        if func is F.linear or func is low_rank_linear:
            entry = _Entry(result)
            self._entries.append(entry)
            self._outputs[id(result)] = result
            self._entry_of[id(result)] = entry
        return result

    def _note_use(self, output: Tensor, total: Tensor | None) -> None:
        entry = self._entry_of[id(output)]
        if total is not None and entry is self._entries[-1] and not entry.is_sum:
            entry.keep(total, is_sum=True)
            return
        if entry.is_sum:
            entry.keep(output)
        del self._outputs[id(output)]  # settled


def _flattened(args: Sequence) -> Iterator:
    for arg in args:
        if isinstance(arg, list | tuple):
            yield from _flattened(arg)
        else:
            yield arg


@contextmanager
def directional_pass(tape: Tape | None = None) -> Iterator[None]:
    """Open a level of dual numbers without gradient; with a tape, the pass inside must be the recorded one."""
    constants = nullcontext() if tape is None else tape.constants.replay()
    with torch.no_grad(), forward_ad.dual_level(), _DirectionalPass(tape), constants:
        yield
    if tape is not None:
        tape.require_end()


class _DirectionalPass(TorchFunctionMode):
    def __init__(self, tape: Tape | None):
        super().__init__()
        self._tape = tape
        self._awaits_sum: _AwaitsSum | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear:
            return self._linear(F.linear, _linear_tangent, *args, **kwargs)
        if func is low_rank_linear:
            return self._linear(low_rank_linear, _low_rank_tangent, *args, **kwargs)
        if func in _ADDITIONS and self._awaits_sum is not None:
            waiting = self._awaits_sum
            others = [arg for arg in args if arg is not waiting.stand_in]
            if len(others) == 1:
                self._awaits_sum = None
                return waiting.add(others[0])
        if func is F.layer_norm:
            return _layer_norm(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _linear(
        self,
        function: Callable,
        tangent_of: Callable,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *more: Any,
    ) -> Tensor:
        primals, tangents = _unpack(inputs, weight, bias, *more)
        tangent = tangent_of(primals, tangents)
        if self._tape is None:
            return _dual(function(*primals), tangent)
        entry = self._tape.take()
        if not entry.is_sum:
            return _dual(entry.value, tangent)
        # Its primal is not known and not needed; a NaN would show a use that the recording did not see.
        stand_in = entry.value.new_full((), torch.nan).expand(*inputs.shape[:-1], len(weight))
        self._awaits_sum = _AwaitsSum(stand_in, tangent, entry.value)
        return stand_in


class _AwaitsSum(NamedTuple):
    """A linear layer's output of which only the tangent and the coming sum are known."""

    stand_in: Tensor
    tangent: Tensor | None
    total: Tensor

    def add(self, other: Tensor | float) -> Tensor:
        tangents = [t for t in (self.tangent, _tangent(other)) if t is not None]
        if not tangents:
            return self.total
        tangent = tangents[0] if len(tangents) == 1 else tangents[0] + tangents[1]
        return _dual(self.total, tangent.expand_as(self.total))


def _linear_tangent(primals: list, tangents: list) -> Tensor | None:
    (inputs, weight, _), (inputs_tangent, weight_tangent, bias_tangent) = primals, tangents
    if weight_tangent is None and bias_tangent is not None:
        weight_tangent = torch.zeros_like(weight)
    if weight_tangent is None:
        return None if inputs_tangent is None else F.linear(inputs_tangent, weight)
    tangent = F.linear(inputs, weight_tangent, bias_tangent)
    if inputs_tangent is None:
        return tangent
    rows, more = tangent.flatten(0, -2), inputs_tangent.reshape(-1, inputs_tangent.shape[-1])
    if rows.dtype == more.dtype == weight.dtype:  # not so under autocast, whose casts in-place products do not have
        rows.addmm_(more, weight.T)
        return tangent
    return torch.addmm(rows, more, weight.T).view_as(tangent)


def _low_rank_tangent(primals: list, tangents: list) -> Tensor | None:
    """One product of the layer's size, with the sum of its weights, and two small ones for the factors' tangents."""
    inputs, weight, _, first, second, scale = primals
    inputs_tangent, weight_tangent, bias_tangent, first_tangent, second_tangent, _ = tangents
    if inputs_tangent is not None:
        weight = torch.addmm(weight, second, first, alpha=scale)
    tangent = _linear_tangent([inputs, weight, None], [inputs_tangent, weight_tangent, bias_tangent])
    pairs = [(first, second_tangent), (first_tangent, second)]  # B' A x + B A' x
    pairs = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not pairs:
        return tangent
    inner = F.linear(inputs, torch.cat([before for before, _ in pairs])).flatten(0, -2)
    outer = scale * torch.cat([after for _, after in pairs], dim=1).T
    if tangent is None:
        return (inner @ outer).unflatten(0, inputs.shape[:-1])
    rows = tangent.flatten(0, -2)
    if rows.dtype == inner.dtype == outer.dtype:
        rows.addmm_(inner, outer)
        return tangent
    return torch.addmm(rows, inner, outer).view_as(tangent)


def _layer_norm(inputs: Tensor, shape: Sequence[int], weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    (inputs, weight, bias), (tangent, weight_tangent, bias_tangent) = _unpack(inputs, weight, bias)
    if torch.is_autocast_enabled(inputs.device.type):  # which takes layer norms in float32
        inputs, tangent = inputs.float(), None if tangent is None else tangent.float()
    normed, mean, inverse = torch.native_layer_norm(inputs, shape, None, None, eps)
    if tangent is not None:
        backward = torch.ops.aten.native_layer_norm_backward
        tangent = backward(tangent, inputs, shape, mean, inverse, None, None, [True, False, False])[0]
    if weight is None:
        return _dual(normed, tangent)
    bias = torch.zeros_like(weight) if bias is None else bias
    output = torch.addcmul(bias, normed, weight)
    if tangent is not None:
        tangent = tangent.mul_(weight)
    if weight_tangent is not None:
        tangent = normed.mul_(weight_tangent) if tangent is None else tangent.addcmul_(normed, weight_tangent)
    if bias_tangent is not None:
        tangent = bias_tangent.expand_as(output) if tangent is None else tangent.add_(bias_tangent)
    return _dual(output, tangent)


def _attention(queries, keys, values, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None) -> Tensor:
    assert dropout_p == 0.0, "kernels drop differently: models/attention.py must drop attention weights by itself"
    batch_shape, scale = queries.shape[:-2], queries.shape[-1] ** -0.5 if scale is None else scale
    primals, tangents = _unpack(queries, keys, values)
    (attn_mask,), (mask_t,) = _unpack(attn_mask)
    # One copy each: torch would copy the heads' views anew for every product.
    (queries, keys, values), (queries_t, keys_t, values_t) = map(_as_matrices, (primals, tangents))
    keys_T = keys.transpose(1, 2)
    scores = torch.bmm(queries, keys_T).unflatten(0, batch_shape) * scale
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    shares = scores.softmax(-1).flatten(0, -3)
    output = torch.bmm(shares, values)
    tangent = None if queries_t is None else torch.bmm(queries_t, keys_T)
    if keys_t is not None:
        tangent = _add_product(tangent, queries, keys_t.transpose(1, 2))
    if tangent is not None:
        tangent = tangent.mul_(scale)
    if mask_t is not None:  # a learned bias, such as that of relative positions
        mask_t = mask_t.expand(scores.shape).flatten(0, -3)
        tangent = mask_t if tangent is None else tangent.add_(mask_t)
    if tangent is not None:
        tangent = torch._softmax_backward_data(tangent.to(shares.dtype), shares, -1, shares.dtype)
        tangent = torch.bmm(tangent, values)
    if values_t is not None:
        tangent = _add_product(tangent, shares, values_t)
    output = output.unflatten(0, batch_shape)
    return _dual(output, None if tangent is None else tangent.view_as(output))


def _as_matrices(stacks: list) -> list:
    return [None if stack is None else stack.contiguous().flatten(0, -3) for stack in stacks]


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    return torch.bmm(left, right) if total is None else torch.baddbmm(total, left, right)


def _unpack(*values: Tensor | float | None) -> tuple[list, list]:
    """Split into primals and tangents; what is no tensor is a primal."""
    pairs = [tuple(forward_ad.unpack_dual(value)) if isinstance(value, Tensor) else (value, None) for value in values]
    return [primal for primal, _ in pairs], [tangent for _, tangent in pairs]


def _tangent(value) -> Tensor | None:
    return forward_ad.unpack_dual(value).tangent if isinstance(value, Tensor) else None


def _dual(primal: Tensor, tangent: Tensor | None) -> Tensor:
    return primal if tangent is None else forward_ad.make_dual(primal, tangent.to(primal.dtype))
