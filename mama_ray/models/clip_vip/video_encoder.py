"""CLIP-ViP's video tower: CLIP's image transformer with video proxy tokens and a temporal embedding.

Tokens are [class token, extra proxies | patches of frame 0 | patches of frame 1 | ...]. All proxies add spatial
position 0 and no temporal embedding. The tower owns the pixel normalisation, so frames arrive as decoded.
"""

from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor, nn

from mama_ray.models.attention import attend, proxy_guided_attention
from mama_ray.models.interpolate import interpolate_temporal
from mama_ray.models.patches import PatchEmbedding, Patches
from mama_ray.models.transformer import LAYER_NORM_EPS, Encoder, EncoderConfig, initialise_encoder


class VideoEmbeddings(nn.Module):
    """Pixels to the tokens of the video transformer."""

    def __init__(
        self,
        width: int,
        *,
        image_size: int,
        patch_size: int,
        num_frames: int,
        num_proxies: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.added_cls = nn.Parameter(torch.empty(num_proxies - 1, width))
        self.patch_embedding = PatchEmbedding(width, patch_size)
        self.position_embedding = nn.Embedding((image_size // patch_size) ** 2 + 1, width)
        self.temporal_embedding = nn.Parameter(torch.empty(1, num_frames, width))
        self.patches = Patches(image_size=image_size, patch_size=patch_size, pixel_mean=pixel_mean, pixel_std=pixel_std)

    def forward(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch tokens dim"]:
        """Embed RGB frames of values 0 to 255 (uint8, or a float tensor of the same range)."""
        batch, num_frames = frames.shape[:2]
        tokens = self.patch_embedding(self.patches(frames))

        spatial = self.position_embedding.weight
        tokens = tokens + (spatial[1:] + self.temporal_at(num_frames)[:, :, None])
        proxies = torch.cat([self.class_embedding[None], self.added_cls]) + spatial[0]
        tokens = rearrange(tokens, "batch frames n dim -> batch (frames n) dim")
        return torch.cat([proxies.expand(batch, -1, -1).to(tokens.dtype), tokens], dim=1)

    def temporal_at(self, num_frames: int) -> Float[Tensor, "1 frames dim"]:
        """Temporal embedding for `num_frames` frames, linearly interpolated when the stored count differs."""
        return interpolate_temporal(self.temporal_embedding, num_frames)


class VideoEncoder(nn.Module):
    """Frames to the final hidden state of the class token."""

    def __init__(
        self,
        config: EncoderConfig,
        *,
        image_size: int,
        patch_size: int,
        num_frames: int,
        num_proxies: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        place_init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.num_proxies = num_proxies
        self.embeddings = VideoEmbeddings(
            config.width,
            image_size=image_size,
            patch_size=patch_size,
            num_frames=num_frames,
            num_proxies=num_proxies,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)  # Hugging Face's spelling, kept for its keys
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self._initialise(config, place_init_std)

    def forward(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Encode any number of frames per clip."""
        batch, num_frames = frames.shape[:2]
        hidden = self.encoder(
            self.pre_layrnorm(self.embeddings(frames)),
            torch.zeros(batch, dtype=torch.long, device=frames.device),
            pattern=partial(proxy_guided_attention, num_proxies=self.num_proxies, num_frames=num_frames),
            pattern_at_positions=attend,  # the class token is a proxy: it sees everything
        )
        return self.post_layernorm(hidden)

    @torch.no_grad()
    def _initialise(self, config: EncoderConfig, place_init_std: float | None) -> None:
        embeddings = self.embeddings
        nn.init.normal_(embeddings.class_embedding, std=config.width**-0.5)
        nn.init.normal_(embeddings.position_embedding.weight, std=config.width**-0.5)
        nn.init.kaiming_uniform_(embeddings.patch_embedding.weight, a=5**0.5)  # nn.Conv2d's own, as in CLIP
        if embeddings.added_cls.numel():  # init warns about empty tensors
            nn.init.normal_(embeddings.added_cls)
        nn.init.zeros_(embeddings.temporal_embedding)
        if place_init_std is not None:
            nn.init.normal_(embeddings.temporal_embedding, std=place_init_std)
            nn.init.normal_(embeddings.position_embedding.weight, std=place_init_std)
        initialise_encoder(self.encoder, config)
