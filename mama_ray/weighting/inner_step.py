"""The inner optimiser's map A: theta' = theta - A(gradient), and its adjoint.

The map is a model of the real step, chosen by `inner_optimizer`: plain SGD, or the Adam step that the real optimiser
would take from its state. A relative step fixes the length of the inner step to a fraction of the parameters' norm,
since the size of the inner step decides which way the learned weights slope. Where the real step's groups have shares
of the learning rate (`lr_scale`), the map has them too.

The adjoint is that of the map's whole derivative: Adam's second moment and the norm of a relative step move with the
gradient, and what they contribute is part of it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mama_ray.weighting.hypergradient import Parameters, norm_of
from mama_ray.weighting.settings import InnerStepConfig


@dataclass(frozen=True)
class Lookahead:
    """theta' and what the adjoint of its derivative in the gradient g needs.

    theta' is theta - scale * step(g), whose derivative is scale * slopes * shares, elementwise; of a relative step,
    whose scale is length / |step|, it is scale * (1 - unit unit^T) slopes * shares with unit = step / |step|. Where
    theta' lies on a bound it is zero.
    """

    parameters: dict[str, Tensor]
    scale: Tensor
    slopes: dict[str, Tensor] | None = None
    shares: dict[str, float] = field(default_factory=dict)
    steps: dict[str, Tensor] | None = None
    pinned: dict[str, Tensor] = field(default_factory=dict)

    def adjoint(self, gradients: Parameters) -> dict[str, Tensor]:
        """Apply A^T to a gradient at theta', in place, and return it."""
        direction = dict(gradients)
        torch._foreach_mul_(list(direction.values()), self.scale)
        for name in self.pinned.keys() & direction.keys():
            direction[name].masked_fill_(self.pinned[name], 0.0)
        if self.steps is not None:
            _take_out(direction, self.steps)
        if self.shares:
            torch._foreach_mul_(list(direction.values()), [self.shares[name] for name in direction])
        if self.slopes is not None:
            torch._foreach_mul_(list(direction.values()), [self.slopes[name] for name in direction])
        return direction


def _take_out(direction: dict[str, Tensor], steps: Parameters) -> None:
    """Take the part along `steps` out of a direction, in place: a step of fixed length does not move along itself."""
    names = list(direction)
    norm = _at_least_tiny(norm_of(steps))
    products = torch.stack([torch.dot(direction[name].flatten(), steps[name].flatten()) for name in names])
    along = products.sum() / norm / norm  # one after the other: the square would underflow
    for name in names:
        direction[name].addcmul_(steps[name], along, value=-1)


def _at_least_tiny(norm: Tensor) -> Tensor:
    return norm.clamp(min=1e-20)


def take_lookahead(
    parameters: Parameters,
    gradients: Parameters,
    config: InnerStepConfig,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    named_parameters: Parameters | None = None,
    bounds: dict[str, tuple[float, float]] | None = None,
) -> Lookahead:
    """Return theta' = theta - A(gradient) as new leaf tensors, with what its adjoint needs.

    `optimizer` and `named_parameters` (its own tensors by name) are needed for the Adam map and for the shares of the
    learning rate that the optimiser's groups have. `bounds` clamp parameters
    inside the inner step as the real step clamps them after it (logit_scale).
    """
    steps, slopes = dict(gradients), None
    if config.optimizer == "adam":
        steps, slopes = _adam_step(optimizer, named_parameters, gradients)
    shares = {} if optimizer is None else _shares_of_rate(optimizer, named_parameters)
    if shares:
        steps = {name: shares[name] * step for name, step in steps.items()}
    any_gradient = next(iter(gradients.values()))
    scale = torch.as_tensor(config.lr, dtype=any_gradient.dtype, device=any_gradient.device)
    if config.relative:
        scale = config.lr * norm_of(parameters) / _at_least_tiny(norm_of(steps))
    names, pinned = list(parameters), {}
    moved = torch._foreach_mul([steps[name] for name in names], -scale)
    torch._foreach_add_(moved, [parameters[name].detach() for name in names])
    ahead = dict(zip(names, moved, strict=True))
    for name in ahead.keys() & (bounds or {}).keys():
        low, high = bounds[name]
        pinned[name] = (ahead[name] < low) | (ahead[name] > high)
        ahead[name].clamp_(low, high)
    for value in moved:
        value.requires_grad_()
    return Lookahead(ahead, scale, slopes, shares, steps if config.relative else None, pinned)


def _shares_of_rate(optimizer: torch.optim.Optimizer, named_parameters: Parameters) -> dict[str, float]:
    """Return each parameter's share of the learning rate; {} where all have the same."""
    shares = {id(value): group.get("lr_scale", 1.0) for group in optimizer.param_groups for value in group["params"]}
    if set(shares.values()) <= {1.0}:
        return {}
    return {name: shares[id(value)] for name, value in named_parameters.items()}


def _adam_step(
    optimizer: torch.optim.Optimizer, named_parameters: Parameters, gradients: Parameters
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the step of unit lr that Adam would take from its state, and that step's derivative in the gradient.

    With m and s the moments before the step, b1, b2 their decay rates, c1, c2 the corrections of their bias and
    r = sqrt((b2 s + (1 - b2) g^2) / c2), the step is (b1 m + (1 - b1) g) / c1 / (r + eps) and its derivative

        (r + eps)^-2 [ (1 - b1) / c1 eps + ((1 - b1) b2 s - (1 - b2) b1 m g) / (c1 c2 r) ]

    where the terms in g^2, which cancel, are left out: at a run's first step, all but a sign's, nothing else is there.
    It is 0 where r is, at elements that no clip has ever moved: the slope there, (1 - b1) / c1 / eps, holds for
    gradients below eps alone and would drown all others in a finite difference.
    """
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    epsilon = optimizer.param_groups[0]["eps"]
    steps, slopes = {}, {}
    for name, gradient in gradients.items():
        state = optimizer.state.get(named_parameters[name], {})
        number = float(state.get("step", 0)) + 1
        correction1, correction2 = 1 - beta1**number, 1 - beta2**number
        first, second = (1 - beta1) * gradient, (1 - beta2) * gradient * gradient
        if "exp_avg_sq" in state:
            first, second = first + beta1 * state["exp_avg"], second + beta2 * state["exp_avg_sq"]
        root = second.div_(correction2).sqrt_()
        inverse = 1 / (root + epsilon)
        slope = torch.full_like(gradient, (1 - beta1) / correction1 * epsilon)
        if "exp_avg_sq" in state:
            moving = (1 - beta1) * beta2 * state["exp_avg_sq"] - (1 - beta2) * beta1 * state["exp_avg"] * gradient
            slope += moving / (correction1 * correction2 * root)
        steps[name] = first / correction1 * inverse
        slopes[name] = slope.mul_(inverse).mul_(inverse).masked_fill_(root == 0, 0.0)
    return steps, slopes
