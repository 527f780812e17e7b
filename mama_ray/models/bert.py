"""BERT's embeddings, encoder and MLM head, with Hugging Face's parameter names (arXiv 1810.04805).

Post-LN layers, exact GELU, eps 1e-12. Dropout is torch's own, so its masks follow the global random generator.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.attention import attend
from mama_ray.models.recompute import run_layer
from mama_ray.models.transformer import EncoderConfig

LAYER_NORM_EPS = 1e-12
NUM_SEGMENTS = 2  # rows of the token type table; a text of one part has type 0
INIT_STD = 0.02


class BertEmbeddings(nn.Module):
    """Word plus position plus segment embedding, normed."""

    def __init__(self, width: int, *, vocab_size: int, num_positions: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, width)
        self.position_embeddings = nn.Embedding(num_positions, width)
        self.token_type_embeddings = nn.Embedding(NUM_SEGMENTS, width)
        self.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Embed texts of one segment."""
        num_tokens, positions = token_ids.shape[1], self.position_embeddings.weight
        if num_tokens > len(positions):
            raise UserError(
                "more tokens than BERT has positions",
                got=num_tokens,
                wanted=f"at most {len(positions)}",
                remedy="tokenize with the model's context_length",
            )
        places = positions[:num_tokens] + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(self.word_embeddings(token_ids) + places))


class BertSelfAttention(nn.Module):
    """Query, key and value projections around attention over what the mask lets see."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout_rate = num_heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.dropout_rate if self.training else 0.0
        return attend(
            self.query(hidden), self.key(hidden), self.value(hidden), self.num_heads, mask=mask, dropout=dropout
        )


class BertOutput(nn.Module):
    """LN(residual + dropout(dense(x)))."""

    def __init__(self, inner_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dropout(self.dense(inner)))


class BertAttention(nn.Module):
    """The attention half of a layer."""

    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.self = BertSelfAttention(config.width, config.num_heads, dropout)
        self.output = BertOutput(config.width, config.width, dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return self.output(self.self(hidden, mask), hidden)


class BertIntermediate(nn.Module):
    """The MLP's first half; its second is a BertOutput."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width * config.mlp_ratio)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden))


class BertLayer(nn.Module):
    """Attention, then the MLP, each with its residual and norm behind it."""

    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.attention = BertAttention(config, dropout)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config.width * config.mlp_ratio, config.width, dropout)

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch 1 1 tokens"] | None
    ) -> Float[Tensor, "batch tokens width"]:
        hidden = self.attention(hidden, mask)
        return self.output(self.intermediate(hidden), hidden)


class BertEncoder(nn.Module):
    """A stack of layers; every token may see every one that is no padding."""

    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config, dropout) for _ in range(config.num_layers))
        self.gradient_checkpointing = False

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], is_token: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the last hidden states; those of padding have no meaning."""
        mask = None if is_token is None else is_token[:, None, None, :]
        for layer in self.layer:
            hidden = run_layer(layer, hidden, mask, recompute=self.gradient_checkpointing)
        return hidden


class BertMlmHead(nn.Module):
    """Hidden states to logits of the vocabulary; its keys are those of Hugging Face's BertOnlyMLMHead."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.predictions = nn.Module()
        self.predictions.transform = nn.Module()
        self.predictions.transform.dense = nn.Linear(width, width)
        self.predictions.transform.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.predictions.decoder = nn.Linear(width, vocab_size)

    def forward(self, hidden: Float[Tensor, "batch width"]) -> Float[Tensor, "batch words"]:
        transform = self.predictions.transform
        return self.predictions.decoder(transform.LayerNorm(F.gelu(transform.dense(hidden))))


@torch.no_grad()
def initialise_bert(module: nn.Module) -> None:
    """Initialise linear layers and embeddings in place as BERT does: N(0, 0.02), biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=INIT_STD)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
