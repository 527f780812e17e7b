"""The gradient of the mean meta loss at the lookahead: in micro-batches where the batch is large, summed over ranks."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.objectives.gather import world_size
from mama_ray.objectives.objective import ContrastiveObjective, Objective, TrainingObjective
from mama_ray.weighting.draws import Draws
from mama_ray.weighting.features import Autocast, EncodedBatch, FeatureModel, gradients_at

_NUM_SUMS = 4  # of losses, of valid clips, of those above chance and below half of it


class MetaGradient(NamedTuple):
    """What one pass over a meta batch gives: mean loss and gradient, and which share of its clips have a loss above
    chance and below half of it; None where chance has no number."""

    loss: Float[Tensor, ""]
    gradients: dict[str, Tensor]
    shares: tuple[Float[Tensor, ""], Float[Tensor, ""]] | None


def chance_of(objective: Objective, num_clips: int) -> float | None:
    """Return the loss of who guesses among the texts of so many clips; None where a task or another loss has a say."""
    if isinstance(objective, TrainingObjective):
        if objective.has_task:
            return None
        objective = objective.contrastive
    if not isinstance(objective, ContrastiveObjective) or objective.config.loss != "softmax" or num_clips < 2:
        return None
    return math.log(num_clips) * (2 if objective.config.direction_reduction == "sum" else 1)


def compute_meta_gradient(
    model: FeatureModel,
    ahead: dict[str, Tensor],
    batch: ClipBatch,
    objective: Objective,
    *,
    num_micro_batches: int,
    autocast: Autocast,
    draws: Draws,
    chance: float | None = None,
) -> MetaGradient:
    """Return the mean loss of the ranks' meta batches and its gradient at the parameters `ahead`, which are leaves.

    Other parameters are where the model has them.

    The parameters' gradients, the sum of losses and numbers of clips (valid, above `chance`, below half of it) lie side
    by side, so that one collective of the parameters' size sums all of them.
    """
    names, leaves = list(ahead), list(ahead.values())
    sums = leaves[0].new_zeros(_NUM_SUMS)
    everything = None
    if world_size() > 1:
        everything = leaves[0].new_zeros(sum(leaf.numel() for leaf in leaves) + _NUM_SUMS)
        *parts, sums = everything.split([leaf.numel() for leaf in leaves] + [_NUM_SUMS])
        for leaf, part in zip(leaves, parts, strict=True):
            leaf.grad = part.view_as(leaf)  # backward adds into the buffer: no copy

    def backward_from(inner: FeatureModel) -> None:
        encoded = EncodedBatch(inner, batch, num_micro_batches=num_micro_batches, autocast=autocast, draws=draws)
        losses = objective(encoded.outputs, batch)
        total, own = losses.sum(), losses.detach()
        level = math.inf if chance is None else chance
        counts = [part.sum() for part in (batch.valid, batch.valid & (own > level), batch.valid & (own < level / 2))]
        sums.copy_(torch.stack([total.detach().to(sums.dtype), *(count.to(sums) for count in counts)]))
        encoded.backward(gradients_at(encoded.outputs, total))

    # What the lookahead does not move gets no gradient here, so the backward pass ends where nothing below moves.
    values = {name: value.detach() for name, value in model.named_parameters()} | ahead
    prefixed = {f"features.{name}": value for name, value in values.items()}
    torch.func.functional_call(_Inside(model), prefixed, (backward_from,))
    if everything is not None:
        dist.all_reduce(everything)
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    total, num_valid, num_above, num_below = sums.unbind()
    num_valid = num_valid.clamp(min=1)
    torch._foreach_div_(gradients, num_valid)
    shares = None if chance is None else (num_above / num_valid, num_below / num_valid)
    return MetaGradient(total / num_valid, dict(zip(names, gradients, strict=True)), shares)


class _Inside(nn.Module):
    """Runs forward *and* backward inside one functional call.

    Activation checkpointing recomputes in the backward pass; outside the call it would silently recompute with theta
    instead of theta'.
    """

    def __init__(self, features: FeatureModel):
        super().__init__()
        self.features = features

    def forward(self, work: Callable[[FeatureModel], None]) -> None:
        work(self.features)
