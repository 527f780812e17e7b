"""The loss of a clip's classes: the sum over kinds of the cross-entropies, one value per sample."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.data.classes.names import CLASS
from mama_ray.objectives.objective import Shared
from mama_ray.objectives.question_answering import compute_answer_losses


class ClassOutputs(NamedTuple):
    """The outputs of a model that classifies: those of a dual encoder, and the logits of all kinds side by side."""

    video: Float[Tensor, "local dim"]
    text: Float[Tensor, "local dim"]
    logit_scale: Shared[Float[Tensor, ""]]
    logit_bias: Shared[Float[Tensor, ""]]
    class_logits: Float[Tensor, "local classes"]


@dataclass(frozen=True)
class ClassificationObjective:
    """task_i: the sum of the cross-entropies of clip i's classes; a kind of which it has none adds 0.

    `sizes` are the kinds, in the order of the logits, with the number of classes of each.
    """

    sizes: tuple[tuple[str, int], ...]
    label_smoothing: float = 0.0

    def __call__(self, outputs: ClassOutputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        parts = outputs.class_logits.split([size for _, size in self.sizes], dim=1)
        losses = [
            compute_answer_losses(logits, batch.targets[CLASS + kind], self.label_smoothing)
            for (kind, _), logits in zip(self.sizes, parts, strict=True)
        ]
        return torch.stack(losses).sum(0)
