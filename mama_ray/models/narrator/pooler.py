"""The attention pooler between the video tower and the language model (CoCa's), under the release's names.

Learned queries look at all tokens of a clip, so that the language model sees as many whatever the clip's frames are.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.models.attention import attend_heads
from mama_ray.models.narrator.config import POOLER_HEAD_WIDTH


class ScaleNorm(nn.Module):
    """Layer norm that learns a scale; its shift stays as it is stored, which is 0 in every release."""

    beta: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))
        nn.init.ones_(self.gamma)
        self.register_buffer("beta", torch.zeros(width))

    def forward(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return F.layer_norm(hidden, hidden.shape[-1:], self.gamma, self.beta)


class AttentionPooler(nn.Module):
    """Multi-query attention, keys and values shared by all heads, without a residual and without biases."""

    def __init__(self, width: int, context_width: int, num_heads: int) -> None:
        super().__init__()
        inner = num_heads * POOLER_HEAD_WIDTH
        self.num_heads = num_heads
        self.norm = ScaleNorm(width)
        self.context_norm = ScaleNorm(context_width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(context_width, 2 * POOLER_HEAD_WIDTH, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(
        self, queries: Float[Tensor, "queries width"], context: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch queries width"]:
        """Let the same queries look at each clip's tokens."""
        asked = rearrange(
            self.to_q(self.norm(queries)), "queries (heads dim) -> heads queries dim", heads=self.num_heads
        )
        keys, values = self.to_kv(self.context_norm(context)).chunk(2, dim=-1)
        # The heads of all queries side by side see the one set of keys, which so is never repeated.
        together = rearrange(asked, "heads queries dim -> 1 1 (heads queries) dim").expand(len(context), -1, -1, -1)
        attended = attend_heads(together, keys[:, None], values[:, None])
        merged = "batch 1 (heads queries) dim -> batch queries (heads dim)"
        return self.to_out(rearrange(attended, merged, heads=self.num_heads))
