"""What a weight multiplies where a sample's loss has two terms, contrastive and task: their sum, or the terms apart.

Apart, the terms of a rank stand behind each other as if they were samples: contrastive of its clips, then task, and a
gather joins the ranks. So everything that sees losses, the directional pass too, is the same for either.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mama_ray.objectives.gather import world_size
from mama_ray.weighting.settings import WeightingConfig
from mama_ray.weighting.weight_net import Uniform, compute_sample_weights

NUM_TERMS = 2  # contrastive, task


def line_up(terms: Sequence[Float[Tensor, " local"]]) -> Float[Tensor, " local_terms"]:
    """Return a rank's terms behind each other."""
    return torch.cat(list(terms))


def compute_term_weights(
    weighting: nn.Module,
    losses: Float[Tensor, " terms"],
    config: WeightingConfig,
    *,
    valid: Bool[Tensor, " terms"],
) -> Float[Tensor, " terms"]:
    """Return the coefficients of the gathered terms: each term's are normalised by themselves, and a term that is not
    weighted has its mean."""
    modules = [weighting if config.weighted_term in ("each", name) else None for name in ("contrastive", "task")]
    weights = []
    for module, of_term, is_valid in zip(modules, _by_term(losses), _by_term(valid), strict=True):
        if module is None:
            weights.append(compute_sample_weights(Uniform(), of_term, "sum_global", valid=is_valid))
        else:
            weights.append(compute_sample_weights(module, of_term, config.normalisation, valid=is_valid))
    return rearrange(torch.stack(weights), "terms (ranks clips) -> (ranks terms clips)", ranks=world_size())


def sum_terms(
    losses: Float[Tensor, " terms"], weights: Float[Tensor, " terms"]
) -> tuple[Float[Tensor, " global"], Float[Tensor, " global"]]:
    """Return each clip's summed loss and the weight that the sum has in effect: sum_k w_k l_k over sum_k l_k."""
    by_term, weights = _by_term(losses), _by_term(weights)
    total = by_term.sum(0)
    is_told = total.abs() > torch.finfo(total.dtype).tiny
    effective = (by_term * weights).sum(0) / torch.where(is_told, total, 1.0)
    return total, torch.where(is_told, effective, weights.mean(0))


def of_clips(of_terms: Bool[Tensor, " terms"]) -> Bool[Tensor, " global"]:
    """Return what is said of the clips, from what is said of every term alike."""
    return _by_term(of_terms)[0]


def _by_term(values: Tensor) -> Tensor:
    return rearrange(values, "(ranks terms clips) -> terms (ranks clips)", ranks=world_size(), terms=NUM_TERMS)
