"""Stochastic depth (arXiv 1603.09382): in training a clip may leave a residual branch out."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def drop_branch(branch: Float[Tensor, "batch *rest"], rate: float) -> Float[Tensor, "batch *rest"]:
    """Leave a branch out for a share `rate` of the clips, axis 0, and scale it up for the others.

    Drawn by `F.dropout`, as all masks of a step, so that every pass over a batch draws the same. The caller says
    whether it trains.
    """
    if not rate:
        return branch
    return branch * F.dropout(branch.new_ones(len(branch), *[1] * (branch.dim() - 1)), rate)


def rates_by_depth(rate: float, num_layers: int) -> list[float]:
    """Return the rate of each layer: from 0 at the first linearly to `rate` at the last."""
    return [rate * layer / max(1, num_layers - 1) for layer in range(num_layers)]
