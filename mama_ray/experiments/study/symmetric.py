"""Symmetric cross-entropy: a loss that false pairs pull at less; a control of the study (Wang et al. 2019)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.objectives.objective import Outputs

LOG_OF_ZERO = -4.0


@dataclass(frozen=True)
class SymmetricObjective:
    """(1 - s) CE + s RCE of both directions, their mean.

    RCE is the cross-entropy of the prediction with the label, - sum_k p_k log q_k. The label q is 1 at the pair and 0
    elsewhere, with log 0 = -4, so it is 4 (1 - p) of the pair: bounded, where CE is not.
    """

    share: float

    def __call__(self, outputs: Outputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        logits = outputs.logit_scale.exp() * outputs.video @ outputs.text.T
        losses = torch.zeros_like(logits[:, 0])
        for one_way in (logits, logits.T):
            log_p = one_way.log_softmax(dim=1).diagonal()
            losses = losses + (1 - self.share) * -log_p + self.share * -LOG_OF_ZERO * (1 - log_p.exp())
        return losses / 2
