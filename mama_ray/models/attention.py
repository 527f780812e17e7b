"""Attention of all backbones; every pattern ends in `attend_heads`, the only call of scaled dot-product attention.

That single call lets a caller choose the kernel for all layers with `torch.nn.attention.sdpa_kernel`: forward-mode
differentiation and double backward need `SDPBackend.MATH`, ordinary training takes the fused kernels.
Queries, keys and values are (batch, tokens, width) with the heads side by side in the width; so folding frames into
the batch is one contiguous copy.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Which keys a query sees: a function of queries, keys, values and the number of heads.
AttentionPattern = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def visible_tokens(token_ids: Int[Tensor, "texts tokens"], pad_id: int) -> Bool[Tensor, "texts tokens"]:
    """Return which tokens of texts are seen: all that are no padding, and each text's first.

    A row that fills up a batch is all padding. Attention to nothing is NaN, and so is its gradient, whatever weight the
    row has in the loss.
    """
    is_seen = token_ids != pad_id
    is_seen[:, :1] = True
    return is_seen


def attend(
    queries: Float[Tensor, "batch queries width"],
    keys: Float[Tensor, "batch keys width"],
    values: Float[Tensor, "batch keys width"],
    num_heads: int,
    *,
    mask: Bool[Tensor, "#batch 1 #queries keys"] | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "batch queries width"]:
    """Multi-head scaled dot-product attention; a True in `mask` means that the query sees the key.

    `dropout` is the rate at which attention weights are dropped, 0 outside training.
    """
    queries, keys, values = (
        rearrange(x, "batch tokens (heads dim) -> batch heads tokens dim", heads=num_heads)
        for x in (queries, keys, values)
    )
    attended = attend_heads(queries, keys, values, mask=mask, is_causal=is_causal, dropout=dropout)
    return rearrange(attended, "batch heads tokens dim -> batch tokens (heads dim)")


def attend_heads(
    queries: Float[Tensor, "batch heads queries dim"],
    keys: Float[Tensor, "batch heads keys dim"],
    values: Float[Tensor, "batch heads keys dim"],
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads queries dim"]:
    """Scaled dot-product attention with the heads apart; `scale` is dim^-0.5 where nothing is said.

    `mask` is True where a query sees a key, or is added to the scores.
    """
    if not dropout:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=is_causal, scale=scale)
    # Written out, since each kernel draws masks of its own: a step's masks must repeat in its forward-mode passes,
    # which need the one without a kernel.
    assert not is_causal, "no backbone drops causal attention"
    scores = queries @ keys.mT * (queries.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return F.dropout(scores.softmax(-1), dropout) @ values


def attend_softly_capped(
    queries: Float[Tensor, "batch heads queries dim"],
    keys: Float[Tensor, "batch heads keys dim"],
    values: Float[Tensor, "batch heads keys dim"],
    *,
    cap: float,
    mask: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads queries dim"]:
    """Attention whose scores are cap * tanh(score / cap) (Gemma 2, VideoPrism), for which there is no fused kernel.

    `mask` is True where a query sees a key, or is added to the scores.
    """
    scores = queries @ keys.transpose(-1, -2) * (queries.shape[-1] ** -0.5 if scale is None else scale)
    scores = cap * torch.tanh(scores / cap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    shares = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
    return F.dropout(shares, dropout) @ values


def window_attention(
    qkv: Float[Tensor, "batch windows tokens three_widths"], bias: Float[Tensor, "#windows heads tokens tokens"]
) -> Float[Tensor, "batch windows tokens width"]:
    """Multi-head attention within windows; the bias is added to the scores (Swin).

    Queries, keys and values stand side by side, in this order. A bias that all windows share is not repeated for them.
    """
    num_windows, num_heads = len(bias), bias.shape[1]
    together = "(batch windows) heads tokens dim" if num_windows == 1 else "batch (windows heads) tokens dim"
    queries, keys, values = rearrange(
        qkv, f"batch windows tokens (three heads dim) -> three {together}", three=3, heads=num_heads
    )
    attended = attend_heads(queries, keys, values, mask=bias.flatten(0, 1)[None])
    return rearrange(attended, f"{together} -> batch windows tokens (heads dim)", heads=num_heads, windows=qkv.shape[1])


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, num_heads: int) -> Tensor:
    """Each token sees itself and the tokens before it (the text encoder)."""
    return attend(queries, keys, values, num_heads, is_causal=True)


def causal_attention_at(
    queries: Float[Tensor, "batch 1 width"],
    keys: Float[Tensor, "batch tokens width"],
    values: Float[Tensor, "batch tokens width"],
    num_heads: int,
    *,
    positions: Int[Tensor, " batch"],
) -> Float[Tensor, "batch 1 width"]:
    """Causal attention of one query per row, which stands at `positions` of its row."""
    visible = torch.arange(keys.shape[1], device=keys.device) <= positions[:, None]
    return attend(queries, keys, values, num_heads, mask=visible[:, None, None, :])


def proxy_guided_attention(
    queries: Float[Tensor, "batch tokens width"],
    keys: Float[Tensor, "batch tokens width"],
    values: Float[Tensor, "batch tokens width"],
    num_heads: int,
    *,
    num_proxies: int,
    num_frames: int,
) -> Float[Tensor, "batch tokens width"]:
    """Proxies see every token; a patch sees the proxies and the patches of its own frame (CLIP-ViP, section 3.2).

    Tokens are [num_proxies | num_frames x patches], frame-major. Two calls without a mask tensor: the proxies over
    everything, and the frames folded into the batch with the proxies' keys and values before each. Cost and memory
    are linear in the number of frames.
    """
    for_proxies = attend(queries[:, :num_proxies], keys, values, num_heads)

    frame_queries = rearrange(
        queries[:, num_proxies:], "batch (frames n) width -> (batch frames) n width", frames=num_frames
    )
    frame_keys = _proxies_and_frame(keys, num_proxies, num_frames)
    frame_values = _proxies_and_frame(values, num_proxies, num_frames)
    for_patches = attend(frame_queries, frame_keys, frame_values, num_heads)
    for_patches = rearrange(for_patches, "(batch frames) n width -> batch (frames n) width", frames=num_frames)
    return torch.cat([for_proxies, for_patches], dim=1)


def _proxies_and_frame(tokens: Tensor, num_proxies: int, num_frames: int) -> Tensor:
    """(batch, tokens, width) -> (batch * frames, num_proxies + patches, width)."""
    proxies = tokens[:, None, :num_proxies].expand(-1, num_frames, -1, -1)
    patches = rearrange(tokens[:, num_proxies:], "batch (frames n) width -> batch frames n width", frames=num_frames)
    return torch.cat([proxies, patches], dim=2).flatten(0, 1)
