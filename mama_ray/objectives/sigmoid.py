"""SigLIP's pairwise sigmoid loss (arXiv 2303.15343), one value per sample, with the angular margin, across ranks.

Every pair of a video and a text is a yes-or-no question of its own: log(1 + exp(-z (scale cos + bias))) with z = 1
for a pair that belongs together, else -1. A pair's loss belongs to its video in one direction and to its text in the
other; the mean of both over a batch is SigLIP's loss. Local-loss form as in `contrastive.py`: a rank computes the rows
of its own samples against all features. Memory is O(local x global), or with a `chunk_size` O(local x chunk).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mama_ray.objectives.chunked import Clips, split_clips
from mama_ray.objectives.contrastive import at_least_float32, join_directions
from mama_ray.objectives.gather import gather_plain, gather_with_gradient, rank
from mama_ray.objectives.margin import apply_margin
from mama_ray.objectives.settings import ContrastiveConfig


def compute_sigmoid_losses(
    video_features: Float[Tensor, "local dim"],
    text_features: Float[Tensor, "local dim"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
    config: ContrastiveConfig,
    *,
    valid: Bool[Tensor, " local"] | None = None,
    clips: Int[Tensor, " local"] | None = None,
) -> Float[Tensor, " local"]:
    """Return contrastive_i of this rank's samples against the samples of all ranks.

    Features are unit norm; `logit_scale` is in log form, `logit_bias` is added as it is. Computed in float32 at least,
    whatever the autocast. A sample that is not `valid` has loss 0 and is nobody's negative; with `clips`, samples of
    one number are of one clip, and no negatives of each other.
    """
    known = {"valid": valid, "clips": clips}
    v2t, t2v, positive = _parts(video_features, text_features, logit_scale, logit_bias, config, **known)
    return join_directions(v2t + t2v, -2 * positive, config, valid)  # in this order: runs go on bit for bit


def compute_sigmoid_directions(
    video_features: Float[Tensor, "local dim"],
    text_features: Float[Tensor, "local dim"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
    config: ContrastiveConfig,
    *,
    valid: Bool[Tensor, " local"] | None = None,
    clips: Int[Tensor, " local"] | None = None,
) -> tuple[Float[Tensor, " local"], Float[Tensor, " local"]]:
    """Return the losses video to text and text to video apart; of a sample that is not valid they mean nothing."""
    known = {"valid": valid, "clips": clips}
    v2t, t2v, positive = _parts(video_features, text_features, logit_scale, logit_bias, config, **known)
    return v2t - positive, t2v - positive


def _parts(
    video_features: Float[Tensor, "local dim"],
    text_features: Float[Tensor, "local dim"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
    config: ContrastiveConfig,
    *,
    valid: Bool[Tensor, " local"] | None,
    clips: Int[Tensor, " local"] | None,
) -> tuple[Float[Tensor, " local"], Float[Tensor, " local"], Float[Tensor, " local"]]:
    """Return the losses of negatives in both directions, and the log-probability of the positive pair."""
    with torch.autocast(video_features.device.type, enabled=False):
        video_features, text_features = at_least_float32(video_features), at_least_float32(text_features)
        scale, bias = at_least_float32(logit_scale).exp(), at_least_float32(logit_bias)
        cosine = (video_features * text_features).sum(dim=1, keepdim=True)
        is_positive = torch.ones_like(cosine, dtype=torch.bool)
        logits = scale * apply_margin(cosine, is_positive, **config.margin_rules)[:, 0] + bias
        all_valid = None if valid is None else gather_plain(valid)
        same = None if clips is None else (clips, gather_plain(clips))
        v2t = _sum_negatives(video_features, gather_with_gradient(text_features), scale, bias, config, all_valid, same)
        t2v = _sum_negatives(text_features, gather_with_gradient(video_features), scale, bias, config, all_valid, same)
        return v2t, t2v, F.logsigmoid(logits)


def _sum_negatives(
    queries: Float[Tensor, "local dim"],
    gallery: Float[Tensor, "global dim"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    config: ContrastiveConfig,
    all_valid: Bool[Tensor, " global"] | None,
    clips: Clips | None,
) -> Float[Tensor, " local"]:
    """Return each query's loss over its negatives, chunk by chunk of the gallery where the config asks for chunks."""
    first_row = rank() * len(queries)
    close_margin = config.margin if config.close_negatives == "close_too" else 0.0
    if not 0 < config.chunk_size < len(gallery):
        return _sum_of_piece(queries, gallery, scale, bias, first_row, all_valid, close_margin, clips)
    # One split, not a slice per chunk: the adjoint of a slice is as large as the whole gallery.
    pieces = gallery.split(config.chunk_size)
    valid = [None] * len(pieces) if all_valid is None else all_valid.split(config.chunk_size)
    sums = []
    same = split_clips(clips, config.chunk_size, len(pieces))
    for number, (piece, is_valid, of_piece) in enumerate(zip(pieces, valid, same, strict=True)):
        first = first_row - number * config.chunk_size
        arguments = (queries, piece, scale, bias, first, is_valid, close_margin, of_piece)
        if torch.is_grad_enabled():
            sums.append(checkpoint(_sum_of_piece, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            sums.append(_sum_of_piece(*arguments))
    return torch.stack(sums, dim=1).sum(dim=1)


def _sum_of_piece(
    queries: Float[Tensor, "local dim"],
    piece: Float[Tensor, "chunk dim"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    first_positive: int,
    valid: Bool[Tensor, " chunk"] | None,
    close_margin: float,
    clips: Clips | None,
) -> Float[Tensor, " local"]:
    """Return the losses over the negatives in a piece of the gallery; query i's positive is its row first_positive + i,
    in the piece or not."""
    rows = torch.arange(len(queries), device=queries.device) + first_positive
    excluded = rows[:, None] == torch.arange(len(piece), device=queries.device)[None, :]
    cosine = apply_margin(
        queries @ piece.T, excluded, margin=close_margin, acute_only=False, close_negatives=close_margin > 0
    )
    if valid is not None:
        excluded = excluded | ~valid[None, :]
    if clips is not None:
        excluded = excluded | (clips[0][:, None] == clips[1][None, :])
    return -F.logsigmoid(-(scale * cosine + bias)).masked_fill(excluded, 0.0).sum(dim=1)
