"""The per-sample directional derivatives c_i = <grad l_i(theta), v> that make up the hypergradient.

With theta' = theta - A(sum_i w_i(phi) grad l_i) and v = A^T grad L_meta(theta'), dL_meta/dphi = -sum_i (dw_i/dphi) c_i.
All c_i come from one pass over the training batch, so no second-order graph is built. Three interchangeable methods:

forward_mode       exact, memory of a forward pass; needs the math attention kernel (fused ones have no forward AD)
finite_difference  one or two forward passes with any kernel; errors of 8 % (one-sided) and 0.4 % (central) were seen in
                   float32; useless in bf16
second_order       exact, double backward with its graph: the reference, not for use

Prior art: Meta-Weight-Net (second order), SAMA (finite difference), EMLC and LMOps (forward mode, decomposable losses).
Here l_i may depend on every sample of every rank: `loss_fn` gathers features together with their tangents.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

Parameters = Mapping[str, Tensor]
LossFn = Callable[[Parameters], Float[Tensor, "local"]]
Method = Literal["forward_mode", "finite_difference", "central_difference", "second_order"]

FINITE_DIFFERENCE_RADIUS = 0.01  # epsilon = radius / |v|, as in DARTS and SAMA


def directional_derivatives(
    loss_fn: LossFn,
    parameters: Parameters,
    direction: Parameters,
    method: Method,
    *,
    base_losses: Float[Tensor, "local"] | None = None,
) -> Float[Tensor, "local"]:
    """Return c_i = d/d eps l_i(theta + eps v) at 0 for this rank's samples.

    loss_fn maps parameters to per-sample losses; it must be a deterministic function (no dropout). `direction` is v.
    With `base_losses` = loss_fn(parameters) at hand, finite_difference needs one forward pass only (one-sided).
    """
    match method:
        case "forward_mode":
            return _forward_mode(loss_fn, parameters, direction)
        case "finite_difference":
            return _finite_difference(loss_fn, parameters, direction, base_losses, central=False)
        case "central_difference":
            return _finite_difference(loss_fn, parameters, direction, base_losses, central=True)
        case "second_order":
            return _second_order(loss_fn, parameters, direction)
    raise AssertionError(method)


def norm_of(tensors: Parameters) -> Float[Tensor, ""]:
    """Return the Euclidean norm over all tensors together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm([tensor.detach() for tensor in tensors.values()])))


def _forward_mode(loss_fn: LossFn, parameters: Parameters, direction: Parameters) -> Tensor:
    with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        duals = {name: forward_ad.make_dual(value.detach(), direction[name]) for name, value in parameters.items()}
        losses, tangent = forward_ad.unpack_dual(loss_fn(duals))
        return torch.zeros_like(losses) if tangent is None else tangent.clone()


def _finite_difference(
    loss_fn: LossFn, parameters: Parameters, direction: Parameters, base_losses: Tensor | None, *, central: bool
) -> Tensor:
    norm = norm_of(direction)
    if norm == 0:
        return torch.zeros_like(loss_fn(parameters) if base_losses is None else base_losses).detach()
    epsilon = FINITE_DIFFERENCE_RADIUS / norm
    with torch.no_grad():
        ahead = loss_fn({name: value + epsilon * direction[name] for name, value in parameters.items()})
        if central:
            behind = loss_fn({name: value - epsilon * direction[name] for name, value in parameters.items()})
            return (ahead - behind) / (2 * epsilon)
        base = loss_fn(parameters) if base_losses is None else base_losses.detach()
        return (ahead - base) / epsilon


def _second_order(loss_fn: LossFn, parameters: Parameters, direction: Parameters) -> Tensor:
    # The parameters themselves are the leaves: activation checkpointing recomputes with the module's own tensors, and a
    # detached copy would fall out of the recomputed graph.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        losses = loss_fn(parameters)
        cotangent = torch.ones_like(losses, requires_grad=True)
        names = [name for name, value in parameters.items() if value.requires_grad]
        gradients = torch.autograd.grad(
            (cotangent * losses).sum(), [parameters[name] for name in names], create_graph=True, materialize_grads=True
        )
        inner = sum((gradient * direction[name]).sum() for name, gradient in zip(names, gradients, strict=True))
        return torch.autograd.grad(inner, cotangent)[0]
