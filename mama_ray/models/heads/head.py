"""The heads themselves: features of a clip and of its question in, a logit per answer out.

All three look at (video feature, text feature, their product), which is what two towers that never saw each other can
tell of how clip and question fit. The clip's feature is that of the contrastive loss: it is encoded once.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from mama_ray.errors import UserError, unknown_name
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.settings import HeadConfig

Question = dict[str, Tensor]


class AnswerHead(nn.Module, ABC):
    """A head on features of `dim` channels; `num_answers` is the length of the answer list, 0 without one."""

    def __init__(self, config: HeadConfig, dim: int, num_answers: int) -> None:
        super().__init__()
        self.config, self.dim, self.num_answers = config, dim, num_answers

    @abstractmethod
    def forward(
        self, encoder: DualEncoder, video: Float[Tensor, "batch dim"], question: Question
    ) -> Float[Tensor, "batch answers"]:
        """Return the logits, in float32 at least; `encoder` embeds the texts, and is no part of the head."""


class ClassificationHead(AnswerHead):
    """An MLP with a logit per answer: (v, q, v * q) -> hidden -> answers."""

    def __init__(self, config: HeadConfig, dim: int, num_answers: int) -> None:
        super().__init__(config, dim, num_answers)
        self.mlp = _mlp(config, dim, num_answers)

    def forward(self, encoder: DualEncoder, video: Tensor, question: Question) -> Tensor:
        return _at_least_float32(self.mlp(_joined(video, encoder.encode_text(question["token_ids"]))))


class SimilarityHead(AnswerHead):
    """The answers as texts: (f . a)(q . a) with f an MLP of (v, q, v * q), q and a the encoder's, as VGT scores them.

    The list is encoded anew in every pass, so answers learn with the text tower; unit-norm features make products
    small, hence a learned scale.
    """

    def __init__(self, config: HeadConfig, dim: int, num_answers: int) -> None:
        super().__init__(config, dim, num_answers)
        self.mlp = _mlp(config, dim, dim)
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("answer_token_ids", None, persistent=False)

    def set_answers(self, token_ids: Int[Tensor, "answers tokens"]) -> None:
        """Give the token ids of the answer list, in its order; they are made of the list when a model is loaded."""
        if len(token_ids) != self.num_answers:
            raise UserError("answers of a head", got=len(token_ids), wanted=self.num_answers)
        self.answer_token_ids = token_ids.to(self.log_scale.device)

    def forward(self, encoder: DualEncoder, video: Tensor, question: Question) -> Tensor:
        if self.answer_token_ids is None:
            raise UserError("the head needs its answer list", got="none", remedy="call set_answers")
        asked, answers = encoder.encode_text(question["token_ids"]), encoder.encode_text(self.answer_token_ids)
        fused = _at_least_float32(F.normalize(self.mlp(_joined(video, asked)), dim=-1))
        return self.log_scale.exp() * (fused @ answers.T) * (asked @ answers.T)


class OptionsHead(AnswerHead):
    """A scalar per option: (v, o_k, v * o_k) -> hidden -> 1, an option's text being "question option"."""

    def __init__(self, config: HeadConfig, dim: int, num_answers: int) -> None:
        super().__init__(config, dim, num_answers)
        self.mlp = _mlp(config, dim, 1)

    def forward(self, encoder: DualEncoder, video: Tensor, question: Question) -> Tensor:
        options = question["option_token_ids"]
        texts = encoder.encode_text(rearrange(options, "batch options tokens -> (batch options) tokens"))
        videos = video.repeat_interleave(options.shape[1], dim=0)
        logits = _at_least_float32(self.mlp(_joined(videos, texts)))
        return rearrange(logits, "(batch options) 1 -> batch options", options=options.shape[1])


HEADS: dict[str, type[AnswerHead]] = {
    "classification": ClassificationHead,
    "similarity": SimilarityHead,
    "options": OptionsHead,
}


def build_head(config: HeadConfig, dim: int, num_answers: int) -> AnswerHead:
    """Build a head with new weights; UserError for one that needs an answer list and has none, and for `own`, which is
    no head of ours."""
    if config.kind not in HEADS:
        raise unknown_name("head", config.kind, HEADS)
    if config.kind != "options" and num_answers < 1:
        raise UserError(f"head {config.kind}", got="no answer list", wanted="at least one answer")
    return HEADS[config.kind](config, dim, num_answers)


def _mlp(config: HeadConfig, dim: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(3 * dim),
        nn.Dropout(config.dropout),
        nn.Linear(3 * dim, config.hidden_dim),
        nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden_dim, num_outputs),
    )


def _joined(video: Float[Tensor, "batch dim"], text: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dims"]:
    return torch.cat([video, text, video * text], dim=-1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
