"""The gradient of the mean meta loss at the lookahead: in micro-batches where the batch is large, summed over ranks."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.objectives.gather import world_size
from mama_ray.objectives.objective import Objective
from mama_ray.weighting.draws import Draws
from mama_ray.weighting.features import Autocast, EncodedBatch, FeatureModel, gradients_at


def compute_meta_gradient(
    model: FeatureModel,
    ahead: dict[str, Tensor],
    batch: ClipBatch,
    objective: Objective,
    *,
    num_micro_batches: int,
    autocast: Autocast,
    draws: Draws,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return the mean loss of the ranks' meta batches and its gradient at the parameters `ahead`, which are leaves.

    Other parameters are where the model has them.

    The parameters' gradients, the sum of losses and the number of valid clips lie side by side, so that one collective
    of the parameters' size sums all of them.
    """
    names, leaves = list(ahead), list(ahead.values())
    sums = leaves[0].new_zeros(2)
    everything = None
    if world_size() > 1:
        everything = leaves[0].new_zeros(sum(leaf.numel() for leaf in leaves) + 2)
        *parts, sums = everything.split([leaf.numel() for leaf in leaves] + [2])
        for leaf, part in zip(leaves, parts, strict=True):
            leaf.grad = part.view_as(leaf)  # backward adds into the buffer: no copy

    def backward_from(inner: FeatureModel) -> None:
        encoded = EncodedBatch(inner, batch, num_micro_batches=num_micro_batches, autocast=autocast, draws=draws)
        total = objective(encoded.outputs, batch).sum()
        sums.copy_(torch.stack([total.detach().to(sums.dtype), batch.valid.sum().to(sums)]))
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
    total, num_valid = sums.unbind()
    torch._foreach_div_(gradients, num_valid.clamp(min=1))
    return total / num_valid.clamp(min=1), dict(zip(names, gradients, strict=True))


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
