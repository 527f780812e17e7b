"""Values and tangents of the functions that torch's own forward AD has no kernel for, or a slow one.

Softmax and layer norm have symmetric Jacobians, so their fused backward kernels are also their tangents. Where only one
of two numbers has a tangent, torch takes the other's for a tensor of zeros, whose arithmetic runs in Python: 50 times
the time of the operation itself for a small tensor.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

Operand = Tensor | float | int


def linear_tangent(primals: list, tangents: list) -> Tensor | None:
    """Return W x' + W' x + b' from inputs, weight and bias, and the tangents of those that have one."""
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


def low_rank_tangent(primals: list, tangents: list) -> Tensor | None:
    """One product of the layer's size, with the sum of its weights, and two small ones for the factors' tangents."""
    inputs, weight, _, first, second, scale = primals
    inputs_tangent, weight_tangent, bias_tangent, first_tangent, second_tangent, _ = tangents
    if inputs_tangent is not None:
        weight = torch.addmm(weight, second, first, alpha=scale)
    tangent = linear_tangent([inputs, weight, None], [inputs_tangent, weight_tangent, bias_tangent])
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


def layer_norm(inputs: Tensor, shape: Sequence[int], weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Do as F.layer_norm, for dual numbers."""
    (inputs, weight, bias), (tangent, weight_tangent, bias_tangent) = unpack(inputs, weight, bias)
    if torch.is_autocast_enabled(inputs.device.type):  # which takes layer norms in float32
        inputs, tangent = inputs.float(), None if tangent is None else tangent.float()
    normed, mean, inverse = torch.native_layer_norm(inputs, shape, None, None, eps)
    if tangent is not None:
        backward = torch.ops.aten.native_layer_norm_backward
        tangent = backward(tangent, inputs, shape, mean, inverse, None, None, [True, False, False])[0]
    if weight is None:
        return dual(normed, tangent)
    bias = torch.zeros_like(weight) if bias is None else bias
    output = torch.addcmul(bias, normed, weight)
    if tangent is not None:
        tangent = tangent.mul_(weight)
    if weight_tangent is not None:
        tangent = normed.mul_(weight_tangent) if tangent is None else tangent.addcmul_(normed, weight_tangent)
    if bias_tangent is not None:
        tangent = bias_tangent.expand_as(output) if tangent is None else tangent.add_(bias_tangent)
    return dual(output, tangent)


def attention(queries, keys, values, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None) -> Tensor:
    """Do as F.scaled_dot_product_attention, for dual numbers."""
    assert dropout_p == 0.0, "kernels drop differently: models/attention.py must drop attention weights by itself"
    batch_shape, scale = queries.shape[:-2], queries.shape[-1] ** -0.5 if scale is None else scale
    primals, tangents = unpack(queries, keys, values)
    (attn_mask,), (mask_t,) = unpack(attn_mask)
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
    return dual(output, None if tangent is None else tangent.view_as(output))


def _as_matrices(stacks: list) -> list:
    return [None if stack is None else stack.contiguous().flatten(0, -3) for stack in stacks]


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    return torch.bmm(left, right) if total is None else torch.baddbmm(total, left, right)


def product(left: Operand, right: Operand) -> Tensor:
    """Do as torch.mul, for dual numbers."""
    (left, right), (left_t, right_t) = unpack(left, right)
    if left_t is not None and right_t is not None:
        return dual(left * right, left_t * right + left * right_t)
    return dual(left * right, _times(right_t, left) if left_t is None else left_t * right)


def quotient(left: Operand, right: Operand) -> Tensor:
    """Do as torch.div, for dual numbers."""
    (left, right), (left_t, right_t) = unpack(left, right)
    if right_t is None:
        return dual(left / right, None if left_t is None else left_t / right)
    value = left / right
    return dual(value, (-value * right_t if left_t is None else left_t - value * right_t) / right)


def total(left: Operand, right: Operand) -> Tensor:
    """Do as torch.add, for dual numbers."""
    (left, right), (left_t, right_t) = unpack(left, right)
    if left_t is not None and right_t is not None:
        return dual(left + right, left_t + right_t)
    return _of_one(left + right, right_t if left_t is None else left_t)


def difference(left: Operand, right: Operand) -> Tensor:
    """Do as torch.sub, for dual numbers."""
    (left, right), (left_t, right_t) = unpack(left, right)
    if left_t is not None and right_t is not None:
        return dual(left - right, left_t - right_t)
    return _of_one(left - right, left_t if right_t is None else -right_t)


def _times(tangent: Tensor | None, factor: Operand) -> Tensor | None:
    return None if tangent is None else tangent * factor


def _of_one(value: Tensor, tangent: Tensor | None) -> Tensor:
    return value if tangent is None else dual(value, tangent.expand_as(value))


ADDITIONS = (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
ARITHMETIC = {
    **dict.fromkeys((torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__), product),
    **dict.fromkeys((torch.div, torch.Tensor.div, torch.Tensor.__truediv__), quotient),
    **dict.fromkeys(ADDITIONS, total),
    **dict.fromkeys((torch.sub, torch.Tensor.sub, torch.Tensor.__sub__), difference),
}
"""The rule of each function of two numbers, if it is called with these alone."""


def unpack(*values: Operand | None) -> tuple[list, list]:
    """Split into primals and tangents; what is no tensor is a primal."""
    pairs = [tuple(forward_ad.unpack_dual(value)) if isinstance(value, Tensor) else (value, None) for value in values]
    return [primal for primal, _ in pairs], [tangent for _, tangent in pairs]


def tangent_of(value) -> Tensor | None:
    """Return the tangent of a dual number; None where there is none."""
    return forward_ad.unpack_dual(value).tangent if isinstance(value, Tensor) else None


def dual(primal: Tensor, tangent: Tensor | None) -> Tensor:
    """Join a primal and its tangent, where it has one."""
    return primal if tangent is None else forward_ad.make_dual(primal, tangent.to(primal.dtype))
