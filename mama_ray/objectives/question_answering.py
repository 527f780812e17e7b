"""The loss of an answer: cross-entropy of the right one among those that a head scores, one value per sample.

Whether the logits are those of an answer list or of the options of a multiple choice makes no difference here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.objectives.objective import Shared

ANSWER = "answer"
"""The target's name: the index of the right answer, UNLISTED where no list holds it."""
UNLISTED = -1


class QuestionOutputs(NamedTuple):
    """The outputs of a model that answers: those of a dual encoder, and a logit per answer of each clip's question."""

    video: Float[Tensor, "local dim"]
    text: Float[Tensor, "local dim"]
    logit_scale: Shared[Float[Tensor, ""]]
    logit_bias: Shared[Float[Tensor, ""]]
    answer_logits: Float[Tensor, "local answers"]


@dataclass(frozen=True)
class AnsweringObjective:
    """task_i: the cross-entropy of clip i's answer, 0 where the list does not hold it."""

    label_smoothing: float = 0.0

    def __call__(self, outputs: QuestionOutputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        return compute_answer_losses(outputs.answer_logits, batch.targets[ANSWER], self.label_smoothing)


def compute_answer_losses(
    logits: Float[Tensor, "local answers"], answers: Tensor, label_smoothing: float = 0.0
) -> Float[Tensor, " local"]:
    """Return each sample's cross-entropy, in float32 at least whatever the autocast; 0 where the answer is UNLISTED.

    With label smoothing the target is 1 - s at the right answer and s spread evenly over all.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_shares = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
        is_listed = answers != UNLISTED
        losses = -log_shares.gather(1, answers.clamp(min=0)[:, None])[:, 0]
        if label_smoothing:
            losses = (1 - label_smoothing) * losses - label_smoothing * log_shares.mean(dim=-1)
        return losses.masked_fill(~is_listed, 0.0)
