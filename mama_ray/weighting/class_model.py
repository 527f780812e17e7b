"""A model that classifies clips, as a step runs it: one forward call gives features and the logits of all classes."""

from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.classes import ClassHeads, clip_feature
from mama_ray.objectives.classification import ClassOutputs
from mama_ray.weighting.features import FeatureModel


class ClassModel(FeatureModel):
    """A dual encoder with heads that tell a clip's classes.

    Without the contrast no text is encoded and nothing is projected: what stands for features is the heads' input,
    which no loss reads. With it, and a head before the projection, the video tower runs twice.
    """

    def __init__(
        self, model: DualEncoder, head: ClassHeads, *, has_contrast: bool, logit_bias: float | None = None
    ) -> None:
        super().__init__(model, logit_bias=logit_bias)
        self.head, self._has_contrast = head, has_contrast

    def forward(self, batch: ClipBatch) -> ClassOutputs:
        """Return the features, their scale, and a logit per class."""
        feature = clip_feature(self.model, batch.frames)
        video, text = self._features(batch) if self._has_contrast else (feature, feature)
        return ClassOutputs(*self.with_scale(video, text), self.head(feature))

    def _features(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        return self.model.encode_video(batch.frames), self.model.encode_text(batch.token_ids)
