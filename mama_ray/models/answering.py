"""What a backbone owes that answers questions about a clip: a dual encoder with one more call, which sees both.

`encode_video` still sees no text: the angular margin has meaning for features that were made apart. The loss of an
answer is in `objectives/question_answering.py`, a head for dual encoders that have none in `models/heads/`.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from mama_ray.models.dual_encoder import DualEncoder


@runtime_checkable
class AnsweringEncoder(DualEncoder, Protocol):
    """A dual encoder that scores answers to questions.

    `question` holds what the model's own tokenizer made of each (clip, question) pair, axis 0 the pair: `token_ids`
    (batch, tokens) of an open-ended question or its prompt, `option_token_ids` (batch, options, tokens) of the
    candidates of a multiple choice, and what else the head asks for. What all pairs share, as the tokens of the
    answer list, is no part of it: the head has them.
    """

    def answer(self, frames: Any, question: dict[str, Tensor]) -> Float[Tensor, "batch answers"]:
        """Return a logit for each answer of the list, or for each option, in float32 at least.

        `frames` is what `encode_video` takes: a Num (batch, frames, height, width, c), or where a backbone reads
        features instead of pixels its dict of tensors, axis 0 the pair.
        """


@runtime_checkable
class JointEncoder(AnsweringEncoder, Protocol):
    """An AnsweringEncoder that encodes a clip once for its features and for its answer."""

    def encode_and_answer(
        self, frames: Any, token_ids: Int[Tensor, "texts tokens"], question: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "texts dim"], Float[Tensor, "batch answers"]]:
        """Return (video_features, text_features, logits), as the model's call and `answer` do."""
