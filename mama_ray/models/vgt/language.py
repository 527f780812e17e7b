"""VGT's text model: BERT or RoBERTa as `transformers` has them, then one linear layer; the release's names.

The layers are run one by one, so that recomputation works under `functional_call`, and with the attention that writes
its dropout out. transformers is imported where a model is built: it takes seconds.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.errors import UserError
from mama_ray.models.recompute import run_layer


class TextConfig(Config):
    """The language model; the defaults are bert-base-uncased."""

    kind: Literal["bert", "roberta"] = "bert"
    """VGT's or CoVGT's."""
    width: int = Field(default=768, gt=0, le=1 << 14)
    """Channels per token."""
    num_layers: int = Field(default=12, gt=0, le=200)
    """Transformer layers."""
    num_heads: int = Field(default=12, gt=0, le=1 << 10)
    """Attention heads."""
    ff_width: int = Field(default=3072, gt=0, le=1 << 16)
    """Hidden width of the feed-forward part."""
    num_positions: int = Field(default=512, gt=2, le=1 << 16)
    """Rows of the position table; RoBERTa's first two are not used."""
    num_token_types: int = Field(default=2, gt=0, le=16)
    """Rows of the token type table, 1 in RoBERTa."""
    pad_token_id: int | None = Field(default=0, ge=0)
    """Padding, 1 in RoBERTa; null: rows are filled up with the largest id, as our own tokenizers do."""
    layer_norm_eps: float = Field(default=1e-12, gt=0)
    """1e-5 in RoBERTa."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of hidden states and of attention weights, in training."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TextConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width: got {self.width}, wanted a multiple of num_heads {self.num_heads}")
        if self.kind == "roberta" and self.pad_token_id is None:
            raise ValueError("pad_token_id: got null, wanted RoBERTa's, from which its positions count")
        return self


class Bert(nn.Module):
    """The holder of the language model, for its place in the names."""

    def __init__(self, config: TextConfig, vocab_size: int) -> None:
        super().__init__()
        self.bert = _build(config, vocab_size)
        # The pooler is carried: VGT reads the words.
        for parameter in self.bert.pooler.parameters():
            parameter.requires_grad_(False)


class TextModel(nn.Module):
    """Token ids to word vectors of the model's width."""

    def __init__(self, config: TextConfig, vocab_size: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config, vocab_size)
        self.linear_text = nn.Linear(config.width, width)
        self.end_token_id = vocab_size - 1
        self.gradient_checkpointing = False

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text."""
        return self.config.num_positions - (2 if self.config.kind == "roberta" else 0)

    def forward(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Return a vector per position, padding included."""
        if token_ids.shape[1] > self.max_tokens:
            raise UserError(
                "more tokens than the text model has positions",
                got=token_ids.shape[1],
                wanted=f"at most {self.max_tokens}",
                remedy="tokenize with the model's context_length",
            )
        bert = self.bert.bert
        hidden = bert.embeddings(input_ids=token_ids)
        unseen = ~self.is_word(token_ids)[:, None, None, :]
        mask = torch.zeros(unseen.shape, dtype=hidden.dtype, device=hidden.device)
        mask = mask.masked_fill(unseen, torch.finfo(hidden.dtype).min)
        for layer in bert.encoder.layer:
            hidden = run_layer(layer, hidden, mask, recompute=self.gradient_checkpointing)
        return self.linear_text(hidden)

    def is_word(self, token_ids: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens"]:
        """Return which positions are no padding."""
        if self.config.pad_token_id is not None:
            return token_ids != self.config.pad_token_id
        is_end = (token_ids == self.end_token_id).long()
        return is_end.cumsum(dim=1) - is_end < 1  # the first end-of-text still counts


def _build(config: TextConfig, vocab_size: int) -> Any:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    fields = {
        "vocab_size": vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ff_width,
        "max_position_embeddings": config.num_positions,
        "type_vocab_size": config.num_token_types,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": config.pad_token_id,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "attn_implementation": "eager",
    }
    if config.kind == "roberta":
        return RobertaModel(RobertaConfig(**fields))
    return BertModel(BertConfig(**fields))
