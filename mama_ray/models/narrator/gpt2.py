"""GPT-2 with LaViLa's gated cross-attention before some of its layers, under transformers' names.

    h = h + tanh(alpha_cattn) CrossAttention(ln_cross_attn(h), visual)
    h = h + tanh(alpha_dense) MLP(ln_2_crossattention(h))
    h = the ordinary layer of h

With both alphas at 0, their start, it is GPT-2 itself. A layer is told where its attention looks by functions: over a
whole caption in training and scoring, over stored keys and values in decoding (captioning/gpt2/decoding.py).
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mama_ray.models.attention import attend
from mama_ray.models.narrator.config import Activation, GatedNarratorConfig, Gpt2Config
from mama_ray.models.recompute import run_layer

# From queries, keys and values (batch, tokens, width) of a layer's own text to what they attend to.
OverText = Callable[[Tensor, Tensor, Tensor], Tensor]
# From queries (batch, tokens, width) to what they attend to of the clip.
OverVisual = Callable[[Tensor], Tensor]

_WIDENED_ROWS = 4096  # of an output matrix at a time

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Conv1D(nn.Module):
    """A linear layer whose weight is (in, out), as GPT-2's files have it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, hidden: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return F.linear(hidden, self.weight.T, self.bias)


class _Attention(nn.Module):
    """What both attentions share: how scores are scaled, and the projection onto the residual."""

    def __init__(self, config: Gpt2Config, layer: int) -> None:
        super().__init__()
        self.num_heads, self.dropout = config.num_heads, config.attention_dropout
        self.residual_dropout = config.residual_dropout
        scale = 1.0 if config.scale_attention else (config.width // config.num_heads) ** 0.5
        self.query_scale = scale / (layer + 1) if config.scale_by_layer else scale
        self.c_proj = Conv1D(config.width, config.width)

    def scaled(self, queries: Tensor) -> Tensor:
        """Return queries that give the model's scores when they are divided by the root of the head's width."""
        return queries if self.query_scale == 1.0 else queries * self.query_scale

    def onto_residual(self, attended: Tensor) -> Tensor:
        """Project what the heads gathered."""
        return F.dropout(self.c_proj(attended), self.residual_dropout, self.training)

    @property
    def rate(self) -> float:
        """Rate at which attention weights are dropped now."""
        return self.dropout if self.training else 0.0


class SelfAttention(_Attention):
    """Each token of a caption sees itself and those before it."""

    def __init__(self, config: Gpt2Config, layer: int) -> None:
        super().__init__(config, layer)
        self.c_attn = Conv1D(config.width, 3 * config.width)

    def forward(self, hidden: Tensor, over_text: OverText) -> Tensor:
        queries, keys, values = self.c_attn(hidden).chunk(3, dim=-1)
        return self.onto_residual(over_text(self.scaled(queries), keys, values))

    def over_all(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend causally within whole captions."""
        if not self.rate:
            return attend(queries, keys, values, self.num_heads, is_causal=True)
        num_tokens = queries.shape[1]
        causal = torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool, device=queries.device).tril()
        return attend(queries, keys, values, self.num_heads, mask=causal, dropout=self.rate)


class CrossAttention(_Attention):
    """Each token of a caption sees all visual tokens of its clip."""

    def __init__(self, config: Gpt2Config, layer: int) -> None:
        super().__init__(config, layer)
        self.c_attn = Conv1D(config.width, 2 * config.width)
        self.q_attn = Conv1D(config.width, config.width)

    def forward(self, hidden: Tensor, over_visual: OverVisual) -> Tensor:
        return self.onto_residual(over_visual(self.scaled(self.q_attn(hidden))))

    def keys_values(self, visual: Float[Tensor, "batch queries width"]) -> tuple[Tensor, Tensor]:
        """Return keys and values (batch, queries, width) of clips; all captions of a clip share them."""
        keys, values = self.c_attn(visual).chunk(2, dim=-1)
        return keys, values

    def over(self, keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
        """Attend to the clips whose keys and values these are."""
        return attend(queries, keys, values, self.num_heads, dropout=self.rate)


class Mlp(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, inner_width: int, activation: Callable[[Tensor], Tensor], dropout: float) -> None:
        super().__init__()
        self.c_fc = Conv1D(width, inner_width)
        self.c_proj = Conv1D(inner_width, width)
        self.activation, self.dropout = activation, dropout

    def forward(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return F.dropout(self.c_proj(self.activation(self.c_fc(hidden))), self.dropout, self.training)


def squared_relu(hidden: Tensor) -> Tensor:
    """The activation of the gated blocks."""
    return F.relu(hidden).square()


class Layer(nn.Module):
    """One layer of GPT-2, with or without a gated block before it."""

    def __init__(self, config: Gpt2Config, layer: int, *, crosses: bool) -> None:
        super().__init__()
        width, eps, rate = config.width, config.layer_norm_eps, config.residual_dropout
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = SelfAttention(config, layer)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, config.inner_width or 4 * width, _ACTIVATIONS[config.activation], rate)
        self.crosses = crosses
        if crosses:
            self.crossattention = CrossAttention(config, layer)
            self.ln_cross_attn = nn.LayerNorm(width, eps=eps)
            self.mlp_crossattention = Mlp(width, 4 * width, squared_relu, rate)
            self.ln_2_crossattention = nn.LayerNorm(width, eps=eps)
            self.alpha_cattn = nn.Parameter(torch.zeros(()))
            self.alpha_dense = nn.Parameter(torch.zeros(()))

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], visual: Float[Tensor, "batch queries width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Whole captions, each of its own clip."""
        over_visual = None
        if self.crosses:
            over_visual = partial(self.crossattention.over, *self.crossattention.keys_values(visual))
        return self.run(hidden, self.attn.over_all, over_visual)

    def run(self, hidden: Tensor, over_text: OverText, over_visual: OverVisual | None) -> Tensor:
        """Return the layer's output, with attention that looks where the caller says."""
        if over_visual is not None:
            attended = self.crossattention(self.ln_cross_attn(hidden), over_visual)
            hidden = hidden + torch.tanh(self.alpha_cattn) * attended
            hidden = hidden + torch.tanh(self.alpha_dense) * self.mlp_crossattention(self.ln_2_crossattention(hidden))
        hidden = hidden + self.attn(self.ln_1(hidden), over_text)
        return hidden + self.mlp(self.ln_2(hidden))


class GatedGpt2(nn.Module):
    """The language model; its names are those of GPT2LMHeadModel, to which the gated blocks add theirs."""

    def __init__(self, config: GatedNarratorConfig) -> None:
        super().__init__()
        language = config.language
        self.embedding_dropout = language.embedding_dropout
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(language.vocab_size, language.width),
                "wpe": nn.Embedding(language.num_positions, language.width),
                "h": nn.ModuleList(Layer(language, i, crosses=config.crosses(i)) for i in range(language.num_layers)),
                "ln_f": nn.LayerNorm(language.width, eps=language.layer_norm_eps),
            }
        )
        self.lm_head = None if language.is_tied else nn.Linear(language.width, language.vocab_size, bias=False)
        self.gradient_checkpointing = config.gradient_checkpointing
        self._initialise(language)

    @property
    def layers(self) -> nn.ModuleList:
        """All layers, in order."""
        return self.transformer["h"]

    def forward(
        self, visual: Float[Tensor, "batch queries width"], token_ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return the logits of the token behind each token."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        hidden = self.embed(token_ids, positions)
        for layer in self.layers:
            hidden = run_layer(layer, hidden, visual, recompute=self.gradient_checkpointing)
        return self.logits(hidden)

    def embed(self, token_ids: Int[Tensor, "*batch"], positions: Int[Tensor, "*#batch"]) -> Float[Tensor, "*batch w"]:
        """Return what the first layer takes."""
        hidden = self.transformer["wte"](token_ids) + self.transformer["wpe"](positions)
        return F.dropout(hidden, self.embedding_dropout, self.training)

    def logits(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocab"]:
        """Return the logits of the last layer's output."""
        return F.linear(self.transformer["ln_f"](hidden), self._output)

    def embed_exactly(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Return what `embed` gives in evaluation, in double precision."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        return self.transformer["wte"](token_ids).double() + self.transformer["wpe"](positions).double()

    def logits_exactly(self, hidden: Float[Tensor, "batch width"]) -> Float[Tensor, "batch vocab"]:
        """Return what `logits` gives of hidden states in double precision; the output matrix is widened in parts."""
        norm = self.transformer["ln_f"]
        normed = F.layer_norm(hidden, hidden.shape[-1:], norm.weight.double(), norm.bias.double(), norm.eps)
        return torch.cat([F.linear(normed, part.double()) for part in self._output.split(_WIDENED_ROWS)], dim=1)

    @property
    def _output(self) -> Float[Tensor, "vocab width"]:
        return self.transformer["wte"].weight if self.lm_head is None else self.lm_head.weight

    @torch.no_grad()
    def _initialise(self, config: Gpt2Config) -> None:
        onto_residual = config.init_std * (2 * config.num_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=onto_residual)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=config.init_std)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)  # of layer norms it is 0 and their weights 1 already
