"""The per-sample directional derivatives c_i = <grad l_i(theta), v> that make up the hypergradient.

With theta' = theta - A(sum_i w_i(phi) grad l_i) and v = A^T grad L_meta(theta'), dL_meta/dphi = -sum_i (dw_i/dphi) c_i.
All c_i come from one pass over the training batch, so no second-order graph is built. Three interchangeable methods:

forward_mode       exact, memory of a forward pass; its own attention, since fused kernels have no forward AD
finite_difference  one or two forward passes with any kernel; in float32 errors of 0.1 to 2 % (one-sided) and 0.01 to
                   0.3 % (central) were seen; useless in bf16
second_order       exact, double backward with its graph: the reference, not for use

Prior art: Meta-Weight-Net (second order), SAMA (finite difference), EMLC and LMOps (forward mode, decomposable losses).
Here l_i may depend on every sample of every rank: `loss_fn` gathers features together with their tangents.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.objectives.objective import Outputs, remake, which_are_shared, which_are_texts
from mama_ray.weighting.directional import directional_pass
from mama_ray.weighting.drawn_tangents import TangentDraw
from mama_ray.weighting.settings import Method
from mama_ray.weighting.tape import Tape

Parameters = Mapping[str, Tensor]
LossFn = Callable[[Parameters], Float[Tensor, "local *columns"]]

# The radius epsilon |v| of a difference over losses of rounding error u: rounding costs about u / radius, curvature the
# radius (one-sided) or its square (central). DARTS and SAMA take 0.01; docs/meta_step.md has the errors by radius.
ONE_SIDED_RADIUS_OVER_ROOT = 2.0  # times u^(1/2): 7e-4 in float32
CENTRAL_RADIUS_OVER_ROOT = 0.5  # times u^(1/3): 2.5e-3 in float32


def directional_derivatives(
    loss_fn: LossFn,
    parameters: Parameters,
    direction: Parameters,
    method: Method,
    *,
    base_losses: Float[Tensor, "local *columns"] | None = None,
    tape: Tape | None = None,
) -> Float[Tensor, "local *columns"]:
    """Return c_i = d/d eps l_i(theta + eps v) at 0 for this rank's samples.

    loss_fn maps parameters to per-sample losses, or to columns of numbers per sample; it must be one function, with the
    same dropout at every call. `direction` is v.
    With `base_losses` = loss_fn(parameters) at hand, finite_difference needs one forward pass only (one-sided).
    With the `tape` of the pass that gave them, forward_mode leaves out a third of the products; the tape is used up.
    """
    match method:
        case "forward_mode":
            return _forward_mode(loss_fn, parameters, direction, tape)
        case "finite_difference":
            return _finite_difference(loss_fn, parameters, direction, base_losses, central=False)
        case "central_difference":
            return _finite_difference(loss_fn, parameters, direction, base_losses, central=True)
        case "second_order":
            return _second_order(loss_fn, parameters, direction)
    raise AssertionError(method)


def estimated_derivatives(
    encode: Callable[[Parameters], Outputs],
    losses_of: Callable[[Outputs], Float[Tensor, "local *columns"]],
    outputs: Outputs,
    parameters: Parameters,
    direction: Parameters,
    draw: TangentDraw,
    *,
    has_all_texts: bool,
    tape: Tape | None = None,
) -> Float[Tensor, "local *columns"]:
    """Return estimates of c_i for all of this rank's samples from the tangents of a drawn part (`drawn_tangents.py`).

    Their mean over the draws is c_i. `encode` gives the outputs of the rank's chosen clips, but where it
    `has_all_texts` those of all its texts; `outputs` are those of all its clips in the training pass, at which
    `losses_of` is differentiated.
    """
    with directional_pass(tape, draw.chosen):
        duals = {name: forward_ad.make_dual(value.detach(), direction[name]) for name, value in parameters.items()}
        moved, features = [], outputs.video.detach()
        kinds = which_are_shared(type(outputs)), which_are_texts(type(outputs))
        for value, of_part, is_shared, is_text in zip(outputs, encode(duals), *kinds, strict=True):
            tangent = forward_ad.unpack_dual(of_part).tangent
            if tangent is not None and not is_shared and not (is_text and has_all_texts):
                tangent = draw.estimate(tangent, features, are_of_these=not moved)
            value = value.detach()
            moved.append(value if tangent is None else forward_ad.make_dual(value, tangent.to(value.dtype)))
        losses, tangent = forward_ad.unpack_dual(losses_of(remake(outputs, moved)))
        return torch.zeros_like(losses) if tangent is None else tangent.clone()


def norm_of(tensors: Parameters) -> Float[Tensor, ""]:
    """Return the Euclidean norm over all tensors together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm([tensor.detach() for tensor in tensors.values()])))


def _forward_mode(loss_fn: LossFn, parameters: Parameters, direction: Parameters, tape: Tape | None) -> Tensor:
    with directional_pass(tape):
        duals = {name: forward_ad.make_dual(value.detach(), direction[name]) for name, value in parameters.items()}
        losses, tangent = forward_ad.unpack_dual(loss_fn(duals))
        return torch.zeros_like(losses) if tangent is None else tangent.clone()


def _finite_difference(
    loss_fn: LossFn, parameters: Parameters, direction: Parameters, base_losses: Tensor | None, *, central: bool
) -> Tensor:
    norm = norm_of(direction)
    if norm == 0:
        return torch.zeros_like(loss_fn(parameters) if base_losses is None else base_losses).detach()
    rounding = torch.finfo(norm.dtype).eps
    epsilon = CENTRAL_RADIUS_OVER_ROOT * rounding ** (1 / 3) if central else ONE_SIDED_RADIUS_OVER_ROOT * rounding**0.5
    epsilon = epsilon / norm
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
