"""One direction of the contrastive loss over chunks of the gallery: memory O(local x chunk), not O(local x global).

Each chunk gives the log-sum-exp of its negatives, and the loss joins these with the positive's logit. Under a gradient
a chunk is recomputed in the backward pass (one more product of queries and gallery); without one, as in the directional
pass in forward mode, its temporaries are freed at once. Only twice differentiating keeps every chunk's graph: the
reference.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mama_ray.objectives.margin import apply_margin

# Logit of what is no negative. Finite, so that a chunk without any negative gives no NaN in any derivative; in the sum
# over chunks its exponential is an exact 0.
_NO_NEGATIVE = -1e30

Clips = tuple[Tensor, Tensor]
"""The numbers of the queries' clips (local,), and of the gallery's (global,), or of a piece of it."""
Scales = tuple[Tensor, Tensor]
"""The logs of the scales of the queries (local,), and of the gallery (global,), or of a piece of it."""


def compute_losses_in_chunks(
    queries: Float[Tensor, "local dim"],
    counterparts: Float[Tensor, "local dim"],
    gallery: Float[Tensor, "global dim"],
    scale: Float[Tensor, ""],
    *,
    first_row: int,
    chunk_size: int,
    margin: float | Float[Tensor, "local 1"],
    acute_only: bool,
    close_negatives: bool,
    all_valid: Bool[Tensor, " global"] | None,
    clips: Clips | None = None,
    scales: Scales | None = None,
) -> Float[Tensor, " local"]:
    """Return the cross-entropies of the queries; row first_row + i of the gallery is query i's counterpart.

    Margin and rules are those of `apply_margin`. What is not valid is nobody's negative, and of `clips`, the
    queries' and the gallery's, the same are none of each other. With `scales` each pair has the geometric mean of its
    two in the place of `scale`. Where the gallery has more
    chunks than a chunk has rows, one logit per query and chunk is what takes the most memory.
    """
    cosine = (queries * counterparts).sum(dim=1, keepdim=True)
    rules = {"margin": margin, "acute_only": acute_only, "close_negatives": close_negatives}
    own_scale = scale if scales is None else scales[0].exp()
    positive = own_scale * apply_margin(cosine, torch.ones_like(cosine, dtype=torch.bool), **rules)[:, 0]
    starts = range(0, len(gallery), chunk_size)
    # One split, not a slice per chunk: the adjoint of a slice is as large as the whole gallery.
    pieces = gallery.split(chunk_size)
    valid = [None] * len(pieces) if all_valid is None else all_valid.split(chunk_size)
    close_margin = margin if close_negatives and isinstance(margin, float) else 0.0
    logits = [positive]
    same = split_clips(clips, chunk_size, len(pieces))
    of_scales = split_clips(scales, chunk_size, len(pieces))
    for start, piece, is_valid, of_piece, pair in zip(starts, pieces, valid, same, of_scales, strict=True):
        arguments = (queries, piece, scale, first_row - start, is_valid, close_margin, of_piece, pair)
        if torch.is_grad_enabled():
            logits.append(checkpoint(_sum_negatives, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            logits.append(_sum_negatives(*arguments))
    # The positive is joined as the very number that is taken off, so rounding makes no loss negative.
    return torch.stack(logits, dim=1).logsumexp(dim=1) - positive


def join_scales(queries: Float[Tensor, " local"], gallery: Float[Tensor, " global"]) -> Float[Tensor, "local global"]:
    """Return the geometric means of scales from their logs; of equal ones they are these, bit for bit."""
    return (0.5 * (queries[:, None] + gallery[None, :])).exp()


def split_clips(clips: Clips | None, chunk_size: int, num_pieces: int) -> list[Clips | None]:
    """Return for each piece of the gallery what is said of the queries and of it."""
    if clips is None:
        return [None] * num_pieces
    return [(clips[0], piece) for piece in clips[1].split(chunk_size)]


def _sum_negatives(
    queries: Float[Tensor, "local dim"],
    piece: Float[Tensor, "chunk dim"],
    scale: Float[Tensor, ""],
    first_positive: int,
    valid: Bool[Tensor, " chunk"] | None,
    close_margin: float,
    clips: Clips | None,
    scales: Scales | None,
) -> Float[Tensor, " local"]:
    """Return the log-sum-exp of the negatives in a piece of the gallery; query i's positive is its row
    first_positive + i, in the piece or not."""
    rows = torch.arange(len(queries), device=queries.device) + first_positive
    excluded = rows[:, None] == torch.arange(len(piece), device=queries.device)[None, :]
    cosine = apply_margin(
        queries @ piece.T, excluded, margin=close_margin, acute_only=False, close_negatives=close_margin > 0
    )
    if valid is not None:
        excluded = excluded | ~valid[None, :]
    if clips is not None:
        excluded = excluded | (clips[0][:, None] == clips[1][None, :])
    scale = scale if scales is None else join_scales(*scales)
    return (scale * cosine).masked_fill(excluded, _NO_NEGATIVE).logsumexp(dim=1)
