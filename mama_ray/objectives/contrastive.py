"""The softmax contrastive loss, one value per sample, with the angular margin, coupled across ranks.

Local-loss form: a rank computes the rows of its own samples against the features of every rank, so the sum over ranks
is the loss of the joined batch. Memory is O(local x global), or with a `chunk_size` O(local x chunk).
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mama_ray.objectives.chunked import Clips, compute_losses_in_chunks, join_scales
from mama_ray.objectives.gather import gather_plain, gather_with_gradient, rank
from mama_ray.objectives.margin import apply_margin
from mama_ray.objectives.settings import ContrastiveConfig


def compute_contrastive_losses(
    video_features: Float[Tensor, "local dim"],
    text_features: Float[Tensor, "local dim"],
    logit_scale: Float[Tensor, ""],
    config: ContrastiveConfig,
    *,
    valid: Bool[Tensor, " local"] | None = None,
    clips: Int[Tensor, " local"] | None = None,
    is_generated: Bool[Tensor, " local"] | None = None,
) -> Float[Tensor, " local"]:
    """Return contrastive_i of this rank's samples against the samples of all ranks.

    Features are unit norm; `logit_scale` is in log form. Computed in float32 at least, whatever the autocast. A sample
    that is not `valid` (an unreadable clip) has loss 0 and is nobody's negative (MAMA, arXiv 2407.03788). With `clips`,
    samples of one number are of one clip, as questions about it are, and no negatives of each other. With
    `is_generated`, logits of two samples with generated texts have the scale config.generated_scale, and those of one
    such and another the geometric mean of the two scales (LaViLa, arXiv 2212.04501).
    """
    known = {"valid": valid, "clips": clips, "is_generated": is_generated}
    v2t, t2v = compute_contrastive_directions(video_features, text_features, logit_scale, config, **known)
    return join_directions(v2t, t2v, config, valid)


def join_directions(
    v2t: Float[Tensor, " local"],
    t2v: Float[Tensor, " local"],
    config: ContrastiveConfig,
    valid: Bool[Tensor, " local"] | None,
) -> Float[Tensor, " local"]:
    """Return the loss of both directions, 0 of a sample that is not valid."""
    losses = v2t + t2v
    if config.direction_reduction == "mean":
        losses = losses / 2
    return losses if valid is None else losses * valid


def compute_contrastive_directions(
    video_features: Float[Tensor, "local dim"],
    text_features: Float[Tensor, "local dim"],
    logit_scale: Float[Tensor, ""],
    config: ContrastiveConfig,
    *,
    valid: Bool[Tensor, " local"] | None = None,
    clips: Int[Tensor, " local"] | None = None,
    is_generated: Bool[Tensor, " local"] | None = None,
) -> tuple[Float[Tensor, " local"], Float[Tensor, " local"]]:
    """Return the losses video to text and text to video apart; of a sample that is not valid they mean nothing."""
    with torch.autocast(video_features.device.type, enabled=False):
        video_features, text_features = at_least_float32(video_features), at_least_float32(text_features)
        scale = at_least_float32(logit_scale).exp()
        scales = None
        if is_generated is not None and config.generated_scale is not None:
            both = (at_least_float32(logit_scale), math.log(config.generated_scale))
            scales = _log_scales(is_generated, *both), _log_scales(gather_plain(is_generated), *both)
        all_videos, all_texts = gather_with_gradient(video_features), gather_with_gradient(text_features)
        all_valid = None if valid is None else gather_plain(valid)
        same = None if clips is None else (clips, gather_plain(clips))
        if 0 < config.chunk_size < len(all_texts):
            rules = config.margin_rules | {"chunk_size": config.chunk_size, "all_valid": all_valid}
            rules |= {"first_row": rank() * len(video_features), "clips": same, "scales": scales}
            v2t = compute_losses_in_chunks(video_features, text_features, all_texts, scale, **rules)
            t2v = compute_losses_in_chunks(text_features, video_features, all_videos, scale, **rules)
        else:
            scale = scale if scales is None else join_scales(*scales)
            v2t = _direction_losses(video_features, all_texts, scale, config, all_valid, same)
            t2v = _direction_losses(text_features, all_videos, scale, config, all_valid, same)
        return v2t, t2v


def combine_losses(
    contrastive: Float[Tensor, " local"], task: Float[Tensor, " local"] | None, eta: float
) -> Float[Tensor, " local"]:
    """Return L_i = contrastive_i + eta * task_i: the sum is what a sample's weight sees and multiplies."""
    return contrastive if task is None else contrastive + eta * task


def _log_scales(is_generated: Bool[Tensor, " batch"], human: Float[Tensor, ""], generated: float) -> Tensor:
    """Return the log of each sample's scale."""
    return torch.where(is_generated, torch.full_like(human, generated), human)


def _direction_losses(
    queries: Float[Tensor, "local dim"],
    gallery: Float[Tensor, "global dim"],
    scale: Float[Tensor, "*scales"],
    config: ContrastiveConfig,
    all_valid: Bool[Tensor, " global"] | None,
    clips: Clips | None,
) -> Float[Tensor, " local"]:
    num_local, num_global = queries.shape[0], gallery.shape[0]
    positive = torch.arange(num_local, device=queries.device) + rank() * num_local
    is_positive = positive[:, None] == torch.arange(num_global, device=queries.device)[None, :]
    cosine = apply_margin(queries @ gallery.T, is_positive, **config.margin_rules)
    logits = scale * cosine
    if all_valid is not None:
        logits = logits.masked_fill(~all_valid[None, :] & ~is_positive, -math.inf)
    if clips is not None:
        own, others = clips
        logits = logits.masked_fill((own[:, None] == others[None, :]) & ~is_positive, -math.inf)
    return logits.logsumexp(dim=1) - logits.gather(1, positive[:, None])[:, 0]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or float64 where it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
