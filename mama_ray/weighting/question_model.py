"""A model that answers questions, as a step runs it: one forward call gives features and answers."""

from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.models.answering import AnsweringEncoder, JointEncoder
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.head import AnswerHead
from mama_ray.objectives.question_answering import QuestionOutputs
from mama_ray.weighting.features import FeatureModel


class QuestionModel(FeatureModel):
    """A dual encoder with a head, or a backbone that answers by itself.

    A batch's clips are encoded once, however many questions they have, where head or backbone allow it.
    """

    def __init__(self, model: DualEncoder, head: AnswerHead | None = None, *, logit_bias: float | None = None):
        super().__init__(model, logit_bias=logit_bias)
        self.head = head

    def forward(self, batch: ClipBatch) -> QuestionOutputs:
        """Return the features, their scale, and a logit per answer."""
        model = self.model
        if self.head is not None:
            video, text = self._encode(batch)
            logits = self.head(model, video, batch.question)
        elif isinstance(model, JointEncoder):
            encoded = model.encode_frames(batch.frames)
            video, text = batch.for_questions(model.pool_frames(encoded)), model.encode_text(batch.token_ids)
            logits = model.answer_encoded(batch.for_questions(encoded), batch.question)
        else:
            assert isinstance(model, AnsweringEncoder)
            video, text = self._encode(batch)
            logits = model.answer(_for_questions(batch), batch.question)
        return QuestionOutputs(*self.with_scale(video, text), logits)

    def _encode(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        return batch.for_questions(self.model.encode_video(batch.frames)), self.model.encode_text(batch.token_ids)


def _for_questions(batch: ClipBatch) -> Tensor | dict[str, Tensor]:
    if isinstance(batch.frames, dict):
        return {name: batch.for_questions(value) for name, value in batch.frames.items()}
    return batch.for_questions(batch.frames)
