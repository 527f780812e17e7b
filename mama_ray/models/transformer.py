"""The pre-LN transformer that both towers of CLIP share, with Hugging Face's parameter names.

Both towers read one token of the last layer only, so that layer computes its query, output projection and MLP for this
token alone: the same feature with 5/6 of the last layer's matrix products left out.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.models.attention import AttentionPattern
from mama_ray.models.recompute import run_layer

LAYER_NORM_EPS = 1e-5
QUICK_GELU_SLOPE = 1.702


class EncoderConfig(Config):
    """Size of one tower's transformer; the MLP is `mlp_ratio` times as wide as the tower."""

    width: int = Field(gt=0, le=1 << 16)
    """Channels per token; a multiple of num_heads."""
    num_layers: int = Field(gt=0, le=200)
    """Transformer layers."""
    num_heads: int = Field(gt=0, le=1 << 12)
    """Attention heads."""
    mlp_ratio: int = Field(default=4, gt=0, le=64)
    """Hidden width of the MLP over the width."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "EncoderConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width: got {self.width}, wanted a multiple of num_heads {self.num_heads}")
        return self


class SelfAttention(nn.Module):
    """Query, key, value and output projections around an attention pattern."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, pattern: AttentionPattern) -> Tensor:
        attended = pattern(self.q_proj(queries), self.k_proj(tokens), self.v_proj(tokens), self.num_heads)
        return self.out_proj(attended)


class Mlp(nn.Module):
    """Two linear layers with quick-GELU, x * sigmoid(1.702 x), between them."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        # quick_gelu(x) = silu(a x) / a. Both factors go into the small weights, so that the activations, the largest
        # tensors of the model, are read and written once each way instead of three and five times.
        if not (isinstance(self.fc1, nn.Linear) and isinstance(self.fc2, nn.Linear)):  # adapted: called as they are
            return self.fc2(F.silu(self.fc1(hidden) * QUICK_GELU_SLOPE) / QUICK_GELU_SLOPE)
        inner = F.linear(hidden, self.fc1.weight * QUICK_GELU_SLOPE, self.fc1.bias * QUICK_GELU_SLOPE)
        return F.linear(F.silu(inner), self.fc2.weight / QUICK_GELU_SLOPE, self.fc2.bias)


class EncoderLayer(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.width, config.num_heads)
        self.layer_norm1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(config.width, config.width * config.mlp_ratio)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        pattern: AttentionPattern,
        positions: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch queries width"]:
        """All tokens, or with `positions` only the token at that position of each row (queries = 1)."""
        normed = self.layer_norm1(hidden)
        queries = normed
        if positions is not None:
            rows = torch.arange(hidden.shape[0], device=hidden.device)
            hidden, queries = hidden[rows, positions, None], normed[rows, positions, None]
        hidden = hidden + self.self_attn(queries, normed, pattern)
        return hidden + self.mlp(self.layer_norm2(hidden))


class Encoder(nn.Module):
    """A stack of layers that returns one token of the last."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        positions: Int[Tensor, " batch"],
        *,
        pattern: AttentionPattern,
        pattern_at_positions: AttentionPattern,
    ) -> Float[Tensor, "batch width"]:
        """Last hidden state of the token at `positions`; `pattern_at_positions` is `pattern` for those queries only."""
        for layer in self.layers[:-1]:
            hidden = self._run(layer, hidden, pattern)
        return self._run(self.layers[-1], hidden, pattern_at_positions, positions).squeeze(1)

    def _run(self, layer: nn.Module, *args: object) -> Tensor:
        return run_layer(layer, *args, recompute=self.gradient_checkpointing)


@torch.no_grad()
def initialise_encoder(encoder: Encoder, config: EncoderConfig) -> None:
    """Initialise in place as OpenAI's CLIP does: residual branches are scaled down by sqrt(2 * num_layers)."""
    into_width = config.width**-0.5
    onto_residual = into_width * (2 * config.num_layers) ** -0.5
    into_mlp = (2 * config.width) ** -0.5
    for layer in encoder.layers:
        attention = layer.self_attn
        stds = {attention.q_proj: into_width, attention.k_proj: into_width, attention.v_proj: into_width}
        stds |= {attention.out_proj: onto_residual, layer.mlp.fc1: into_mlp, layer.mlp.fc2: onto_residual}
        for linear, std in stds.items():
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
