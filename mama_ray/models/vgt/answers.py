"""The answers that open-ended questions choose from: their token ids, and their vectors while no weight changes."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.vgt.language import TextModel


class AnswerList(nn.Module):
    """An answer list that moves with its model and is no part of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("token_ids", None, persistent=False)
        self._kept: tuple[list[Tensor], list[int], Tensor] | None = None

    def set(self, token_ids: Int[Tensor, "answers tokens"]) -> None:
        """Take another list."""
        self.token_ids, self._kept = token_ids, None

    def vectors(self, text_model: TextModel, *, grows: bool) -> Float[Tensor, "answers width"]:
        """Encode the list: the mean over all positions, padding included, as in the release.

        Unless weights change meanwhile (`grows`), vectors of the very same weights are computed once: an evaluation
        asks for them with every batch.
        """
        if self.token_ids is None:
            raise UserError("an open-ended question needs the answer list", got="none", remedy="call set_answers")
        if grows:
            return text_model(self.token_ids).mean(dim=1)
        weights = list(text_model.parameters())
        versions = [weight._version for weight in weights]
        if self._kept is not None:
            kept, kept_versions, vectors = self._kept
            if all(a is b for a, b in zip(kept, weights, strict=True)) and kept_versions == versions:
                return vectors
        vectors = text_model(self.token_ids).mean(dim=1)
        self._kept = (weights, versions, vectors)
        return vectors
