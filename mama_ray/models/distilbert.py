"""DistilBERT (arXiv 1910.01108) as a text tower, with Hugging Face's parameter names; VGT takes its layers.

Post-LN layers, exact GELU, eps 1e-12. Dropout is drawn by `F.dropout` alone, so that the masks of a step repeat where
the generator is reset; none stands behind the output projection.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.attention import attend, visible_tokens
from mama_ray.models.recompute import run_layer
from mama_ray.models.transformer import EncoderConfig

LAYER_NORM_EPS = 1e-12
INIT_STD = 0.02
PAD_ID = 0  # [PAD] of BERT's vocabularies

# Which tokens are seen.
Mask = Bool[Tensor, "batch 1 1 tokens"] | None


class SelfAttention(nn.Module):
    """Self-attention with dropped attention weights and none after the output projection."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.q_lin = nn.Linear(width, width)
        self.k_lin = nn.Linear(width, width)
        self.v_lin = nn.Linear(width, width)
        self.out_lin = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "batch tokens width"], mask: Mask = None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        queries, keys, values = self.q_lin(tokens), self.k_lin(tokens), self.v_lin(tokens)
        return self.out_lin(attend(queries, keys, values, self.num_heads, mask=mask, dropout=dropout))


class FeedForward(nn.Module):
    """Two linear layers with GELU between them and dropout behind them."""

    def __init__(self, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.lin1 = nn.Linear(width, hidden_width)
        self.lin2 = nn.Linear(hidden_width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.lin2(F.gelu(self.lin1(hidden))))


class TransformerBlock(nn.Module):
    """LN(x + attention(x)), then LN(x + FFN(x))."""

    def __init__(self, width: int, num_heads: int, hidden_width: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, num_heads, dropout)
        self.sa_layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.ffn = FeedForward(width, hidden_width, dropout)
        self.output_layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], mask: Mask = None
    ) -> Float[Tensor, "batch tokens width"]:
        tokens = self.sa_layer_norm(tokens + self.attention(tokens, mask))
        return self.output_layer_norm(tokens + self.ffn(tokens))


class Transformer(nn.Module):
    """A stack of blocks; a token sees those that the mask marks, without one all."""

    def __init__(self, width: int, num_heads: int, hidden_width: int, dropout: float, num_layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerBlock(width, num_heads, hidden_width, dropout) for _ in range(num_layers))
        self.gradient_checkpointing = False

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], mask: Mask = None
    ) -> Float[Tensor, "batch tokens width"]:
        for layer in self.layer:
            tokens = run_layer(layer, tokens, mask, recompute=self.gradient_checkpointing)
        return tokens


class DistilBertEmbeddings(nn.Module):
    """Word plus position embedding, normed."""

    def __init__(self, width: int, *, vocab_size: int, num_positions: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, width)
        self.position_embeddings = nn.Embedding(num_positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        places = self.position_embeddings.weight[: token_ids.shape[1]]
        return self.dropout(self.LayerNorm(self.word_embeddings(token_ids) + places))


class DistilBert(nn.Module):
    """Token ids to the last hidden state of [CLS], the first token; [PAD] is not seen."""

    def __init__(self, config: EncoderConfig, *, vocab_size: int, num_positions: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.embeddings = DistilBertEmbeddings(
            config.width, vocab_size=vocab_size, num_positions=num_positions, dropout=dropout
        )
        hidden_width = config.width * config.mlp_ratio
        self.transformer = Transformer(config.width, config.num_heads, hidden_width, dropout, config.num_layers)
        self._initialise()

    def forward(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch width"]:
        """Encode texts; rows may be filled up with [PAD]."""
        num_positions = self.embeddings.position_embeddings.num_embeddings
        if token_ids.shape[1] > num_positions:
            raise UserError(
                "more tokens than DistilBERT has positions",
                got=token_ids.shape[1],
                wanted=f"at most {num_positions}",
                remedy="tokenize with the model's context_length",
            )
        is_token = visible_tokens(token_ids, PAD_ID)
        return self.transformer(self.embeddings(token_ids), is_token[:, None, None, :])[:, 0]

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in backward."""
        return self.transformer.gradient_checkpointing

    @torch.no_grad()
    def _initialise(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=INIT_STD)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
