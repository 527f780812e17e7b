"""A linear layer with a low-rank addition as one function, so that whoever watches functions sees it whole.

A forward-mode pass needs its output and no part of it (`weighting/directional.py`), and one product adds the low-rank
part to the other's output in place of three passes over it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def low_rank_linear(
    inputs: Float[Tensor, "*rows ins"],
    weight: Float[Tensor, "outs ins"],
    bias: Float[Tensor, " outs"] | None,
    first: Float[Tensor, "rank ins"],
    second: Float[Tensor, "outs rank"],
    scale: float,
) -> Float[Tensor, "*rows outs"]:
    """Return inputs (weight + scale second first)^T + bias (LoRA, arXiv 2106.09685) without making that sum."""
    tensors = (inputs, weight, first, second)
    if has_torch_function(tensors):
        return handle_torch_function(low_rank_linear, tensors, inputs, weight, bias, first, second, scale)
    output, inner = F.linear(inputs, weight, bias), F.linear(inputs, first)
    return torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), second.T, alpha=scale).view_as(output)
