"""From features of frames to one of the clip: their mean, at the start; what may be learned is added to it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.models.attention import attend
from mama_ray.models.interpolate import interpolate_temporal
from mama_ray.models.transformer import EncoderConfig, EncoderLayer

HEAD_WIDTH = 64  # as in CLIP


class TemporalPooling(nn.Module):
    """Mean of the frames' unit vectors, plus a small transformer over the frames (CLIP4Clip's sequential kind).

    With `num_layers` 0 there is nothing to learn. The transformer's output enters through a projection that starts at
    zero, so pooling starts at the mean, whatever the layers are. It sees frames in order by a temporal embedding, which
    is interpolated for another number of frames.
    """

    def __init__(self, width: int, *, num_layers: int, num_frames: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        if num_layers == 0:
            return
        heads = next(n for n in range(max(1, width // HEAD_WIDTH), 0, -1) if width % n == 0)
        size = EncoderConfig(width=width, num_layers=num_layers, num_heads=heads)
        self.temporal_embedding = nn.Parameter(torch.empty(1, num_frames, width).normal_(std=0.01))
        self.layers.extend(EncoderLayer(size) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.projection.weight)

    def forward(self, features: Float[Tensor, "batch frames dim"]) -> Float[Tensor, "batch dim"]:
        """Pool features of frames, at least float32 and of any norm; the result has no unit norm yet."""
        features = F.normalize(features, dim=-1)
        if len(self.layers):
            hidden = features.to(self.temporal_embedding.dtype)
            hidden = hidden + interpolate_temporal(self.temporal_embedding, features.shape[1])
            for layer in self.layers:
                hidden = layer(hidden, attend)
            features = features + self.projection(self.norm(hidden)).to(features.dtype)
        return features.mean(dim=1)
