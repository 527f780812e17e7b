"""What a backbone owes that answers questions about a clip: a dual encoder with one more call, which sees both.

`encode_video` still sees no text: the angular margin has meaning for features that were made apart. The loss of an
answer is in `objectives/question_answering.py`, a head for dual encoders that have none in `models/heads/`.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
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

    answering_parts: ClassVar[tuple[str, ...]] = ()
    """Names of the parts that `answer` alone reads: without questions nothing trains them."""

    def answer(self, frames: Any, question: dict[str, Tensor]) -> Float[Tensor, "batch answers"]:
        """Return a logit for each answer of the list, or for each option, in float32 at least.

        `frames` is what `encode_video` takes: a Num (batch, frames, height, width, c), or where a backbone reads
        features instead of pixels its dict of tensors, axis 0 the pair.
        """


@runtime_checkable
class JointEncoder(AnsweringEncoder, Protocol):
    """An AnsweringEncoder whose costly part of a clip's encoding serves the contrast and every question of the clip."""

    def encode_frames(self, frames: Any) -> Tensor:
        """Return what a clip is before any text was seen, axis 0 the clip."""

    def pool_frames(self, encoded: Tensor) -> Float[Tensor, "batch dim"]:
        """Return `encode_video`'s features from it."""

    def answer_encoded(self, encoded: Tensor, question: dict[str, Tensor]) -> Float[Tensor, "batch answers"]:
        """Return `answer`'s logits from it, whose rows may be repeated for the questions of one clip."""


@runtime_checkable
class ChoosesFromList(Protocol):
    """A backbone that must be told the answers of open-ended questions; `models/asking.py` makes their ids."""

    model_type: ClassVar[str]

    config: Any
    """The backbone's own config."""

    def set_answers(self, token_ids: Tensor, /) -> None:
        """Take a list, in its order, axis 0 the answer."""
