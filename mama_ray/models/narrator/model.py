"""LaViLa's narrator (arXiv 2212.04501, section 3.1): a video tower, an attention pooler and a gated GPT-2.

The parameters have the names of the release, so `visual.*` is a TimeSformer dual encoder's, `text_decoder.*` a
GPT2LMHeadModel's.
"""

import re
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from mama_ray.models.narrator.config import GatedNarratorConfig
from mama_ray.models.narrator.gpt2 import GatedGpt2
from mama_ray.models.narrator.pooler import AttentionPooler, ScaleNorm
from mama_ray.models.timesformer.video_tower import VideoTower

# What LaViLa trains: what neither the dual encoder nor the language model have brought along.
_TRAINED = re.compile(r"img_queries$|img_attn_pool|text_decoder\..*(crossattention|cross_attn|alpha_cattn|alpha_dense)")


class GatedNarrator(nn.Module):
    """Clips in, logits of their captions out; construct it from a config for a fresh start, or with `load.py`."""

    model_type: ClassVar[str] = "mama_ray_gated_narrator"

    def __init__(self, config: GatedNarratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.language.width
        self.visual = VideoTower(
            config.video,
            kind=config.attention,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_frames=config.num_frames,
            pixel_mean=config.pixel_mean,
            pixel_std=config.pixel_std,
            time_start=config.time_start,
            place_init_std=config.place_init_std,
        )
        self.text_decoder = GatedGpt2(config)
        self.img_queries = nn.Parameter(torch.empty(config.num_queries, width))
        nn.init.normal_(self.img_queries, std=width**-0.5)
        self.img_attn_pool = AttentionPooler(width, config.video.width, config.pooler_heads)
        self.img_attn_pool_norm = ScaleNorm(width)
        self.set_gradient_checkpointing(config.gradient_checkpointing)

    def forward(
        self, visual: Float[Tensor, "batch queries channels"], token_ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return the logits of the token behind each token of captions, each of its own clip (`encode_visual`)."""
        return self.text_decoder(visual, token_ids)

    def encode_visual(
        self, frames: Num[Tensor, "batch frames height width c"]
    ) -> Float[Tensor, "batch queries channels"]:
        """Return the visual tokens of RGB clips with values 0 to 255 (uint8, or floats of that range)."""
        return self.pool(self.visual.tokens(frames))

    def pool(self, tokens: Float[Tensor, "batch tokens visual"]) -> Float[Tensor, "batch queries channels"]:
        """Return the visual tokens of what the video tower gives, which a frozen tower need not compute twice."""
        return self.img_attn_pool_norm(self.img_attn_pool(self.img_queries, tokens))

    def trained_parameter_names(self) -> tuple[str, ...]:
        """Return what LaViLa trains: the gated blocks, the queries and the pooler; the two other models stay."""
        return tuple(name for name, _ in self.named_parameters() if _TRAINED.match(name))

    def freeze_but_trained_(self) -> None:
        """Let gradients flow to `trained_parameter_names` alone."""
        trained = set(self.trained_parameter_names())
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trained)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether a part recomputes its layers in backward."""
        return self.visual.gradient_checkpointing or self.text_decoder.gradient_checkpointing

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation of the layers in backward on or off."""
        self.visual.gradient_checkpointing = self.text_decoder.gradient_checkpointing = enabled
