"""The inner optimiser's map A: theta' = theta - A(gradient), and its adjoint.

The map is a model of the real step, chosen by `inner_optimizer`: plain SGD, or Adam with its preconditioner frozen at
the current state. A relative step fixes the length of the inner step to a fraction of the parameters' norm, since the
size of the inner step decides which way the learned weights slope. Where the real step's groups have shares of the
learning rate (`lr_scale`), the map has them too.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mama_ray.weighting.hypergradient import Parameters, norm_of
from mama_ray.weighting.settings import InnerStepConfig


@dataclass(frozen=True)
class Lookahead:
    """theta' and the diagonal d for which A^T v = d * v (elementwise, or one number for every element)."""

    parameters: dict[str, Tensor]
    scale: Tensor
    preconditioner: dict[str, Tensor] | None
    pinned: dict[str, Tensor] = field(default_factory=dict)

    def adjoint(self, gradients: Parameters) -> dict[str, Tensor]:
        """Apply A^T to a gradient at theta', in place, and return it; zero where theta' lies on a bound."""
        direction = dict(gradients)
        torch._foreach_mul_(list(direction.values()), self.scale)
        if self.preconditioner is not None:
            torch._foreach_mul_(list(direction.values()), [self.preconditioner[name] for name in direction])
        for name in self.pinned.keys() & direction.keys():
            direction[name].masked_fill_(self.pinned[name], 0.0)
        return direction


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
    preconditioner = momentum = None
    if config.optimizer == "adam":
        preconditioner, momentum = _frozen_adam(optimizer, named_parameters, gradients)
    steps = dict(gradients)
    if preconditioner is not None:
        steps = {name: preconditioner[name] * gradient + momentum[name] for name, gradient in gradients.items()}
    if optimizer is not None and (shares := _shares_of_rate(optimizer, named_parameters)):
        steps = {name: shares[name] * step for name, step in steps.items()}
        before = preconditioner or {name: torch.ones_like(gradient) for name, gradient in gradients.items()}
        preconditioner = {name: shares[name] * factor for name, factor in before.items()}
    any_gradient = next(iter(gradients.values()))
    scale = torch.as_tensor(config.lr, dtype=any_gradient.dtype, device=any_gradient.device)
    if config.relative:
        scale = config.lr * norm_of(parameters) / norm_of(steps).clamp(min=1e-20)
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
    return Lookahead(ahead, scale, preconditioner, pinned)


def _shares_of_rate(optimizer: torch.optim.Optimizer, named_parameters: Parameters) -> dict[str, float]:
    """Return each parameter's share of the learning rate; {} where all have the same."""
    shares = {id(value): group.get("lr_scale", 1.0) for group in optimizer.param_groups for value in group["params"]}
    if set(shares.values()) <= {1.0}:
        return {}
    return {name: shares[id(value)] for name, value in named_parameters.items()}


def _frozen_adam(
    optimizer: torch.optim.Optimizer, named_parameters: Parameters, gradients: Parameters
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return per-element factors of the gradient and the constant part from the momentum, for a step of unit lr."""
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    epsilon = optimizer.param_groups[0]["eps"]
    factors, constants = {}, {}
    for name, gradient in gradients.items():
        state = optimizer.state.get(named_parameters[name], {})
        step = float(state.get("step", 0)) + 1
        second = (1 - beta2) * gradient * gradient
        first = torch.zeros_like(gradient)
        if "exp_avg_sq" in state:
            second, first = second + beta2 * state["exp_avg_sq"], beta1 * state["exp_avg"]
        inverse = 1 / ((second / (1 - beta2**step)).sqrt() + epsilon)
        factors[name] = inverse * (1 - beta1) / (1 - beta1**step)
        constants[name] = inverse * first / (1 - beta1**step)
    return factors, constants
