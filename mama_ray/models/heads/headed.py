"""A dual encoder and a head as one model that answers: what evaluation asks, of a folder with a head."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.answering import AnsweringEncoder
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.folder import Tokenizes, has_head, load_head
from mama_ray.models.heads.head import AnswerHead
from mama_ray.models.pretrained import from_pretrained


class HeadedEncoder(nn.Module, AnsweringEncoder):
    """An `AnsweringEncoder` of a dual encoder, to whom all else is passed on, and a head; `answers` is the list."""

    model_type: ClassVar[str] = "headed"  # of no folder: the encoder's own is saved, and the head beside it

    def __init__(self, encoder: DualEncoder, head: AnswerHead, answers: Sequence[str] = ()) -> None:
        super().__init__()
        self.encoder, self.head, self.answers = encoder, head, tuple(answers)
        self.config, self.logit_scale = encoder.config, encoder.logit_scale

    @property
    def logit_scale_bounds(self) -> tuple[float, float]:
        """The encoder's."""
        return self.encoder.logit_scale_bounds

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the encoder's layers are recomputed in backward."""
        return self.encoder.gradient_checkpointing

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation of the encoder's layers on or off."""
        self.encoder.set_gradient_checkpointing(enabled)

    def clamp_logit_scale_(self) -> None:
        """Put the logit scale back within its bounds."""
        self.encoder.clamp_logit_scale_()

    def forward(
        self, frames: Num[Tensor, "batch frames height width c"], token_ids: Int[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "texts dim"]]:
        """Return (video_features, text_features)."""
        return self.encoder(frames, token_ids)

    def encode_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Embed clips."""
        return self.encoder.encode_video(frames)

    def encode_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Embed texts."""
        return self.encoder.encode_text(token_ids)

    def answer(self, frames: Any, question: dict[str, Tensor]) -> Float[Tensor, "batch answers"]:
        """Return a logit per answer of the list, or per option."""
        return self.answer_encoded(self.encoder.encode_video(frames), question)

    def answer_encoded(
        self, video: Float[Tensor, "batch dim"], question: dict[str, Tensor]
    ) -> Float[Tensor, "batch answers"]:
        """Do as `answer`, from features of the clips: rows of one clip may be repeated for its questions."""
        return self.head(self.encoder, video, question)


def load_answering(directory: Path, tokenizer: Tokenizes | None = None, **overrides: Any) -> AnsweringEncoder:
    """Load a model folder that can answer: one with a head, or a backbone that answers by itself.

    UserError for a dual encoder without a head.
    """
    encoder = from_pretrained(directory, **overrides)
    if has_head(directory):
        head, answers = load_head(directory, dim=feature_dim(encoder), tokenizer=tokenizer)
        return HeadedEncoder(encoder, head, answers)
    if isinstance(encoder, AnsweringEncoder):
        return encoder
    raise UserError(
        "the model answers no questions",
        got=f"{directory}: {encoder.model_type} without a head",
        wanted="a folder with head.json, or a backbone that answers",
        remedy="train one with task.kind question_answering",
    )


def feature_dim(encoder: DualEncoder) -> int:
    """Return the channels of an encoder's features: those of a text of one token."""
    with torch.no_grad():
        token_ids = torch.full((1, 1), encoder.config.vocab_size - 1, device=encoder.logit_scale.device)
        return encoder.encode_text(token_ids).shape[-1]
