"""CLIP's causal text tower; the feature is read at the first end-of-text token.

End-of-text is the largest id of the vocabulary (CLIP's rule), so its first place is the argmax of the ids, whatever the
padding is. A causal token never sees what stands behind it, so padding needs no mask.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.attention import causal_attention, causal_attention_at
from mama_ray.models.transformer import LAYER_NORM_EPS, Encoder, EncoderConfig, initialise_encoder


class TextEmbeddings(nn.Module):
    """Token plus position embedding."""

    def __init__(self, vocab_size: int, context_length: int, width: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.position_embedding = nn.Embedding(context_length, width)

    def forward(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        return self.token_embedding(token_ids) + self.position_embedding.weight[: token_ids.shape[1]]


class TextEncoder(nn.Module):
    """Token ids to the final hidden state of the first end-of-text token."""

    def __init__(self, config: EncoderConfig, *, vocab_size: int, context_length: int) -> None:
        super().__init__()
        self.context_length = context_length
        self.embeddings = TextEmbeddings(vocab_size, context_length, config.width)
        self.encoder = Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self._initialise(config)

    def forward(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch width"]:
        """Encode up to `context_length` tokens per row; shorter rows cost less and give the same features."""
        if token_ids.shape[1] > self.context_length:
            raise UserError(
                "more tokens than the text encoder has positions",
                got=token_ids.shape[1],
                wanted=f"at most {self.context_length}",
                remedy="tokenize with the model's context_length",
            )
        end_of_text = token_ids.argmax(dim=1)
        hidden = self.encoder(
            self.embeddings(token_ids),
            end_of_text,
            pattern=causal_attention,
            pattern_at_positions=partial(causal_attention_at, positions=end_of_text),
        )
        return self.final_layer_norm(hidden)

    @torch.no_grad()
    def _initialise(self, config: EncoderConfig) -> None:
        nn.init.normal_(self.embeddings.token_embedding.weight, std=0.02)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.01)
        initialise_encoder(self.encoder, config)
