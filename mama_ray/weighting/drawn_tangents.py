"""The tangents of a random part of the clips, and the unbiased estimate of the hypergradient from them.

A loss couples clips through their features f_j. With G_ij = dl_i / df_j the derivatives are c_i = sum_j <G_ij, f'_j>
and what comes from outputs that all clips share, as the logit scale. So they, and the hypergradient

    dL_meta/dphi = - sum_i (dw_i / dphi) c_i = - sum_j <sum_i (dw_i / dphi) G_ij, f'_j> - ...

are linear in the tangents f'_j, and every G_ij is known from the primal features of the training pass. With clips
chosen of which each is in with probability p, f'_j / p for those chosen and 0 for the rest (Horvitz-Thompson) give each
c_i and the hypergradient the right mean, whatever the loss. What is left over is variance, and most of a tangent can be
told from others: moved parameters move clips of like features alike. So a prediction m_j stands in for each tangent and
only what it misses is drawn: m_j + (f'_j - m_j) / p for a chosen clip, m_j for the rest. Clips are drawn one of each
1 / p neighbours in the global batch, each neighbourhood by itself, and a prediction is made from the others alone: it
does not depend on who was drawn in its own, so the mean is still right. (Texts, whose tower is small, have all their
tangents where they are encoded for themselves.)

One of each neighbourhood also gives all ranks equal work, where their batches are whole neighbourhoods.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mama_ray.objectives.gather import gather_plain, rank, world_size
from mama_ray.weighting.chosen_clips import ChosenClips
from mama_ray.weighting.draws import Draws

_STREAM = 2  # of random numbers, beside those of dropout in the training batch and in the meta batch
# Of the prediction, in units of the features' variance: how little slopes are trusted, and how much a common part is.
_RIDGE, _COMMON = 0.3, 10.0
_LEAST_VARIANCE = 1e-9  # features that coincide tell nothing


@dataclass(frozen=True)
class TangentDraw:
    """Which clips of the global batch were drawn to give tangents, one of each `size` neighbours, of the valid ones."""

    is_drawn: Bool[Tensor, " global"]
    is_valid: Bool[Tensor, " global"]
    size: int

    @property
    def chosen(self) -> ChosenClips:
        """The clips of this rank that a pass is made over: those drawn, or the first, without a say, where none is.

        That one's pass gives the outputs that all clips share.
        """
        own = self.is_drawn[self._own]
        rows = own.nonzero()[:, 0]
        return ChosenClips(rows if len(rows) else torch.zeros(1, dtype=torch.long), len(own))

    @property
    def _own(self) -> slice:
        num_local = len(self.is_drawn) // world_size()
        return slice(rank() * num_local, (rank() + 1) * num_local)

    def estimate(
        self, tangents: Float[Tensor, "chosen *rest"], features: Float[Tensor, "local dim"], *, are_of_these: bool
    ) -> Float[Tensor, "local *rest"]:
        """Return tangents of all clips of this rank, of the right mean, from those of its chosen clips.

        Others are predicted from the clips' `features`. Tangents of unit-norm features themselves (are_of_these) are
        orthogonal to them, and so is then what is predicted.
        """
        chosen, shape = self.chosen, tangents.shape[1:]
        is_drawn = self.is_drawn.to(tangents.device)
        own = tangents.new_zeros(chosen.num_clips, math.prod(shape))
        own[chosen.rows.to(own.device)] = tangents.reshape(len(tangents), -1)
        drawn = is_drawn[self._own, None]
        own = own * drawn
        everything, all_features = gather_plain(own)[is_drawn].double(), gather_plain(features).double()
        valid = all_features[self.is_valid.to(own.device)]
        variance = valid.var(0, correction=0).sum().clamp(min=_LEAST_VARIANCE)
        predicted = predict_from_others(everything, all_features - valid.mean(0), variance, is_drawn, self.size)[
            self._own
        ]
        if are_of_these:
            unit = F.normalize(features.double(), dim=-1)
            predicted = predicted - (predicted * unit).sum(dim=-1, keepdim=True) * unit
        predicted = predicted.to(own.dtype)
        return (predicted + self.size * drawn * (own - predicted)).view(-1, *shape)


def predict_from_others(
    values: Float[Tensor, "drawn dims"],
    features: Float[Tensor, "global dim"],
    variance: Float[Tensor, ""],
    is_drawn: Bool[Tensor, " global"],
    size: int,
) -> Float[Tensor, "global dims"]:
    """Return what every clip's value should be by those drawn in other neighbourhoods than its own, of `size` clips.

    Ridge regression on the features, which are centred, with a constant. It is solved once: leaving a drawn clip out
    changes the coefficients by a multiple of its column of the inverse. How much slopes are trusted does not depend on
    who was drawn.
    """
    places = is_drawn.nonzero()[:, 0]
    if not len(places):
        return values.new_zeros(len(features), values.shape[1])
    kernel = features @ features[places].T + _COMMON * variance
    inverse = torch.linalg.inv(kernel[places] + _RIDGE * variance * torch.eye(len(places)).to(kernel))
    coefficients = inverse @ values
    own = torch.full((-(-len(features) // size),), -1, device=places.device)
    own[places // size] = torch.arange(len(places), device=places.device)
    own = own[torch.arange(len(features), device=places.device) // size]
    weights = (kernel @ inverse).gather(1, own.clamp(min=0)[:, None]) / inverse.diagonal()[own][:, None]
    left_out = weights * coefficients[own]
    return kernel @ coefficients - torch.where(own[:, None] >= 0, left_out, 0.0)


def draw_tangents(valid: Bool[Tensor, " local"], share: float, draws: Draws) -> TangentDraw:
    """Draw one of each 1 / share neighbours in the global batch, every clip with the probability `share`.

    Of a last neighbourhood that is not whole perhaps none is drawn. The draw knows a clip's place in the global batch
    and the step, not the rank. Clips that are not valid have no loss: they give no tangents.
    """
    size, all_valid = round(1 / share), gather_plain(valid).cpu()
    numbers = np.random.default_rng([draws.seed, draws.step, _STREAM]).random(-(-len(all_valid) // size))
    places = size * np.arange(len(numbers)) + (size * numbers).astype(np.int64)
    is_chosen = torch.zeros_like(all_valid)
    is_chosen[torch.from_numpy(places[places < len(all_valid)])] = True
    return TangentDraw(is_chosen & all_valid, all_valid, size)
