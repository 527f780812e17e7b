"""What a weight net that sees several inputs does with each: curves, sensitivities, mean weights of categories.

A curve is the mean weight of a batch's clips were one input the same for all of them and the others as they are
(partial dependence); 1 is the batch's mean weight.
"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mama_ray.weighting.inputs import WeightInput
from mama_ray.weighting.weight_net import WeightNet

_NUM_POINTS = 21
_LOW, _HIGH = 0.02, 0.98  # quantiles of a batch between which a curve is drawn
OTHER = "other"


@torch.no_grad()
def input_curves(weighting: WeightNet, table: Float[Tensor, "batch inputs"]) -> dict[str, list[float]]:
    """Return the curve of each input that is a number: where it is sampled, and the weights there."""
    curves = {}
    for place, each in enumerate(weighting.inputs):
        known = table[:, place][~table[:, place].isnan()]
        if each.values or not len(known):
            continue
        low, high = (torch.quantile(known.double(), share) for share in (_LOW, _HIGH))
        grid = low + (high - low) * torch.linspace(0, 1, _NUM_POINTS, dtype=low.dtype, device=low.device)
        weights = _dependence(weighting, table, place, grid)
        curves |= {f"inputs/{each.name}/curve_value": grid.tolist(), f"inputs/{each.name}/curve_weight": weights}
    return curves


@torch.no_grad()
def sensitivities(weighting: WeightNet, table: Float[Tensor, "batch inputs"]) -> dict[str, float]:
    """Return how much the mean weight changes with each input, 1 being itself: of a number by one standard deviation to
    either side of its mean, halved; of a category between the values with the largest and the least."""
    found = {}
    for place, each in enumerate(weighting.inputs):
        if each.values:
            grid = torch.arange(each.width, dtype=table.dtype, device=table.device)
            weights = _dependence(weighting, table, place, grid)
            change = max(weights) - min(weights)
        else:
            known = table[:, place][~table[:, place].isnan()]
            known = known if len(known) else known.new_zeros(1)
            step = known.std(correction=0)
            low, high = _dependence(weighting, table, place, torch.stack([known.mean() - step, known.mean() + step]))
            change = abs(high - low) / 2
        found[f"inputs/{each.name}/sensitivity"] = change
    return found


def _dependence(weighting: WeightNet, table: Tensor, place: int, grid: Float[Tensor, " points"]) -> list[float]:
    mean = weighting(table).mean().clamp(min=1e-12)
    weights = []
    for value in grid:
        moved = table.clone()
        moved[:, place] = value.to(table.dtype)
        weights.append(float(weighting(moved, reference=table).mean() / mean))
    return weights


def mean_weights(
    inputs: Sequence[WeightInput], table: Float[Tensor, "clips inputs"], weights: Float[Tensor, " clips"]
) -> dict[str, float]:
    """Return the mean weight of the clips of each value of each category; a value without clips is left out.

    Weights are 1 where uniform; clips without any (unusable ones) do not count.
    """
    found, has_weight = {}, weights > 0
    for place, each in enumerate(inputs):
        codes = each.encode(table[:, place], table[:, place]) if each.values else table.new_zeros(len(table), 0)
        for name, is_own in zip((*each.values, OTHER), codes.bool().unbind(1), strict=False):
            if (own := weights[is_own & has_weight]).numel():
                found[f"inputs/{each.name}/weight/{_as_metric(name)}"] = float(own.mean())
    return found


def _as_metric(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", value) or "_"
