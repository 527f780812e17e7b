"""Our attention for the models of transformers, so that forward mode, its own kernels and float64 reach them too.

transformers' eager attention takes its softmax in float32 whatever the weights are; ours in the weights' own precision,
at least float32.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mama_ray.models.attention import attend_heads, attend_softly_capped

ATTENTION = "mama_ray"


def register_attention() -> None:
    """Make `ATTENTION` known to transformers; doing it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, _mask)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """True where a query sees a key; None where every query sees all."""
    from transformers.masking_utils import sdpa_mask

    # A causal mask may be left out for kernels that are told so by the layer; VideoPrism's text layers do not know.
    return sdpa_mask(*args, **(kwargs | {"allow_is_causal_skip": False}))


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: heads apart on axis 1 in, (batch, tokens, heads, dim) out."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # several queries' heads share a key's
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if is_causal is None:
        is_causal = getattr(module, "is_causal", False)
    is_causal = bool(is_causal) and attention_mask is None and query.shape[2] > 1
    if softcap is not None:
        if is_causal:
            attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        attended = attend_softly_capped(
            query, key, value, mask=attention_mask, cap=softcap, scale=scaling, dropout=dropout
        )
    else:
        attended = attend_heads(
            query, key, value, mask=attention_mask, is_causal=is_causal, scale=scaling, dropout=dropout
        )
    return attended.transpose(1, 2).contiguous(), None
