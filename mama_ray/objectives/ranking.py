"""Losses that rank pairs by their cosines: max margin, its adaptive form, and symmetric multi-similarity.

Each pair (i, j) of a clip and another sample's text, and of a text and another sample's clip, has a loss; sample i's is
the mean of those of its row and its column, so the mean over samples is the published mean over pairs. With x the
cosines, w_i the relevance of clip i's own text and r_ij that of text j to it, d = x_ii - x_ij:

max_margin           relu(m - d)                                           (EPIC-KITCHENS-100 retrieval, LaViLa)
adaptive_max_margin  relu(w_i m - d)                                       (EgoVLP)
multi_similarity     R = w_i - r_ij: relu(R m - d) where R > eps, relu(d - R m) where R < -eps, else
                     relu(|R m - d| - slack)                               (SMS, arXiv 2406.12256)

Local-loss form as in `contrastive.py`. Memory is O(local x global), or with a `chunk_size` O(local x chunk).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mama_ray.objectives.contrastive import at_least_float32, join_directions
from mama_ray.objectives.gather import gather_plain, gather_with_gradient, rank
from mama_ray.objectives.relevance import ClassSets, PairClasses, relevance_between, relevance_of_pairs
from mama_ray.objectives.settings import ContrastiveConfig


class _Known(NamedTuple):
    """What is known of queries or of a gallery beside their features; None where nobody asks."""

    valid: Bool[Tensor, " batch"]
    clips: Int[Tensor, " batch"] | None
    classes: ClassSets | None

    def split(self, size: int) -> "list[_Known]":
        parts = [self.valid.split(size)]
        parts.append(_nones(parts[0]) if self.clips is None else self.clips.split(size))
        of_kinds = None if self.classes is None else [kind.split(size) for kind in self.classes]
        parts.append(_nones(parts[0]) if of_kinds is None else tuple(zip(*of_kinds, strict=True)))
        return [_Known(*part) for part in zip(*parts, strict=True)]


class _Queries(NamedTuple):
    """One side of this rank's samples: features, their cosine with their counterpart, its relevance."""

    features: Float[Tensor, "local dim"]
    positive: Float[Tensor, " local"]
    relevance: Float[Tensor, " local"] | None
    known: _Known


def compute_ranking_losses(
    video_features: Float[Tensor, "local dim"],
    text_features: Float[Tensor, "local dim"],
    config: ContrastiveConfig,
    *,
    classes: PairClasses | None = None,
    valid: Bool[Tensor, " local"] | None = None,
    clips: Int[Tensor, " local"] | None = None,
) -> Float[Tensor, " local"]:
    """Return the ranking loss of this rank's samples against the samples of all ranks.

    Features are unit norm; computed in float32 at least, whatever the autocast. `classes` are needed where the config
    says so. A sample that is not `valid` has loss 0 and is compared with none; with `clips`, samples of one number are
    of one clip and not compared.
    """
    v2t, t2v = compute_ranking_directions(
        video_features, text_features, config, classes=classes, valid=valid, clips=clips
    )
    return join_directions(v2t, t2v, config, valid)


def compute_ranking_directions(
    video_features: Float[Tensor, "local dim"],
    text_features: Float[Tensor, "local dim"],
    config: ContrastiveConfig,
    *,
    classes: PairClasses | None = None,
    valid: Bool[Tensor, " local"] | None = None,
    clips: Int[Tensor, " local"] | None = None,
) -> tuple[Float[Tensor, " local"], Float[Tensor, " local"]]:
    """Return the losses video to text and text to video apart; of a sample that is not valid they mean nothing."""
    with torch.autocast(video_features.device.type, enabled=False):
        video_features, text_features = at_least_float32(video_features), at_least_float32(text_features)
        cosine = (video_features * text_features).sum(dim=1)
        own = None if classes is None else relevance_of_pairs(classes, cosine.dtype)
        is_valid = torch.ones_like(cosine, dtype=torch.bool) if valid is None else valid
        videos, texts = (_Known(is_valid, clips, sets) for sets in (classes or (None, None)))
        v2t = _mean_over_others(_Queries(video_features, cosine, own, videos), text_features, texts, config)
        t2v = _mean_over_others(_Queries(text_features, cosine, own, texts), video_features, videos, config)
        return v2t, t2v


def _mean_over_others(
    queries: _Queries, counterparts: Float[Tensor, "local dim"], known: _Known, config: ContrastiveConfig
) -> Float[Tensor, " local"]:
    """Return each query's mean loss over the counterparts of all ranks but its own; 0 where there is no other."""
    gallery = gather_with_gradient(counterparts)
    gathered = _Known(*(_gather(part) for part in known))
    first_row = rank() * len(counterparts)
    size = config.chunk_size or len(gallery)
    sums, counts = [], []
    for start, piece, of_piece in zip(
        range(0, len(gallery), size), gallery.split(size), gathered.split(size), strict=True
    ):
        compared = _compared(queries.known, of_piece, first_row - start)
        counts.append(compared.sum(dim=1))
        arguments = (queries, piece, of_piece.classes, compared, config)
        if torch.is_grad_enabled() and size < len(gallery):
            sums.append(checkpoint(_sum_of_piece, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            sums.append(_sum_of_piece(*arguments))
    return torch.stack(sums).sum(0) / torch.stack(counts).sum(0).clamp(min=1)


def _compared(queries: _Known, piece: _Known, first_positive: int) -> Bool[Tensor, "local piece"]:
    """Tell which of a piece each query is compared with; its counterpart is row first_positive + i, in it or not."""
    rows = torch.arange(len(queries.valid), device=queries.valid.device) + first_positive
    compared = piece.valid[None, :] & (rows[:, None] != torch.arange(len(piece.valid), device=rows.device)[None, :])
    if queries.clips is not None and piece.clips is not None:
        compared = compared & (queries.clips[:, None] != piece.clips[None, :])
    return compared


def _sum_of_piece(
    queries: _Queries,
    piece: Float[Tensor, "piece dim"],
    classes: ClassSets | None,
    compared: Bool[Tensor, "local piece"],
    config: ContrastiveConfig,
) -> Float[Tensor, " local"]:
    lead = queries.positive[:, None] - queries.features @ piece.T
    if config.loss == "max_margin":
        losses = (config.lead - lead).relu()
    else:
        assert queries.relevance is not None and queries.known.classes is not None and classes is not None
        own = queries.relevance[:, None]
        if config.loss == "adaptive_max_margin":
            losses = (config.lead * own - lead).relu()
        else:
            difference = own - relevance_between(queries.known.classes, classes, lead.dtype)
            losses = _multi_similarity(lead, difference, config)
    return losses.masked_fill(~compared, 0.0).sum(dim=1)


def _multi_similarity(
    lead: Float[Tensor, "local piece"], difference: Float[Tensor, "local piece"], config: ContrastiveConfig
) -> Float[Tensor, "local piece"]:
    missing = config.lead * difference - lead
    equal = (missing.abs() - config.relevance_slack).relu()
    losses = torch.where(difference > config.equal_relevance, missing.relu(), equal)
    return torch.where(difference < -config.equal_relevance, (-missing).relu(), losses)


def _gather(part: Tensor | ClassSets | None) -> Tensor | ClassSets | None:
    if part is None:
        return None
    return tuple(gather_plain(kind) for kind in part) if isinstance(part, tuple) else gather_plain(part)


def _nones(like: tuple) -> list[None]:
    return [None] * len(like)
