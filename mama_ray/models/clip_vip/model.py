"""CLIP-ViP, the video-text dual encoder (arXiv 2209.06430), with the state-dict names of Hugging Face's CLIPModel.

Two keys are added to those of CLIPModel: `vision_model.embeddings.added_cls` and `.temporal_embedding`. The two towers
never see each other's input, which the angular margin needs.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.models.clip_vip.video_encoder import VideoEncoder
from mama_ray.models.dual_encoder import PooledEncoder
from mama_ray.models.text_encoder import TextEncoder
from mama_ray.models.transformer import EncoderConfig

CLIP_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class LogitScaleConfig(Config):
    """The learned inverse temperature, in log form; the defaults are CLIP-ViP's."""

    init: float = 4.60
    """Start value; loading weights overwrites it."""
    min: float = 0.0
    """Lower bound, applied after every step."""
    max: float = math.log(200)
    """Upper bound, applied after every step."""
    frozen: bool = False
    """Keep the start value: no gradient."""

    @model_validator(mode="after")
    def _init_lies_within_bounds(self) -> "LogitScaleConfig":
        if not self.min <= self.init <= self.max:
            raise ValueError(f"init: got {self.init}, wanted a value from {self.min} to {self.max}")
        return self


class ClipVipConfig(Config):
    """Everything that fixes the shapes of a CLIP-ViP model and how it reads pixels."""

    video: EncoderConfig = EncoderConfig(width=768, num_layers=12, num_heads=12)
    """The video tower."""
    text: EncoderConfig = EncoderConfig(width=512, num_layers=12, num_heads=8)
    """The text tower."""
    dim: int = Field(default=512, gt=0, le=1 << 16)
    """Width of the joint feature space."""
    image_size: int = Field(default=224, gt=0, le=1 << 12)
    """Frame height and width in pixels; a multiple of patch_size."""
    patch_size: int = Field(default=32, gt=0, le=1 << 10)
    """Patch height and width in pixels."""
    num_frames: int = Field(default=12, gt=0, le=1 << 14)
    """Entries of the temporal embedding; other frame counts interpolate it."""
    num_proxies: int = Field(default=4, gt=0, le=1 << 10)
    """Video proxy tokens, the class token included."""
    vocab_size: int = Field(default=49408, gt=1, le=1 << 22)
    """Token ids; the largest is end-of-text."""
    context_length: int = Field(default=77, gt=1, le=1 << 16)
    """Text positions."""
    pixel_mean: tuple[float, float, float] = CLIP_PIXEL_MEAN
    """RGB mean, full scale 1; belongs to the weights, not to the data."""
    pixel_std: tuple[float, float, float] = CLIP_PIXEL_STD
    """RGB standard deviation, full scale 1."""
    logit_scale: LogitScaleConfig = LogitScaleConfig()
    """Start, bounds and freezing of the logit scale."""
    place_init_std: float | None = Field(default=None, gt=0)
    """Spread of the video's position and temporal embeddings at the start; null is CLIP-ViP's start (temporal zero)."""
    gradient_checkpointing: bool = False
    """Recompute each layer in backward: less memory, about a third more time, the same gradients."""

    @model_validator(mode="after")
    def _patches_tile_the_image(self) -> "ClipVipConfig":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size: got {self.image_size}, wanted a multiple of patch_size {self.patch_size}")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std: got {self.pixel_std}, wanted positive values")
        return self


class ClipVip(nn.Module, PooledEncoder):
    """Dual encoder; construct it from a config for a fresh start, or with `models.pretrained.from_pretrained`."""

    model_type: ClassVar[str] = "clip_vip"

    def __init__(self, config: ClipVipConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextEncoder(config.text, vocab_size=config.vocab_size, context_length=config.context_length)
        self.vision_model = VideoEncoder(
            config.video,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_frames=config.num_frames,
            num_proxies=config.num_proxies,
            pixel_mean=config.pixel_mean,
            pixel_std=config.pixel_std,
            place_init_std=config.place_init_std,
        )
        self.visual_projection = nn.Linear(config.video.width, config.dim, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.dim, bias=False)
        nn.init.normal_(self.visual_projection.weight, std=config.video.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)
        self.logit_scale = nn.Parameter(
            torch.tensor(config.logit_scale.init), requires_grad=not config.logit_scale.frozen
        )
        self.set_gradient_checkpointing(config.gradient_checkpointing)

    @property
    def logit_scale_bounds(self) -> tuple[float, float]:
        """Smallest and largest log scale."""
        return self.config.logit_scale.min, self.config.logit_scale.max

    def forward(
        self, frames: Num[Tensor, "batch frames height width c"], token_ids: Int[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "texts dim"]]:
        """Return (video_features, text_features); the entry that DistributedDataParallel wraps."""
        return self.encode_video(frames), self.encode_text(token_ids)

    def encode_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Embed RGB clips with values 0 to 255 (uint8, or floats of that range) to unit norm, at least float32."""
        return _to_unit_norm(self.project_video(frames))

    @property
    def pooled_width(self) -> int:
        """Channels of `pool_video`."""
        return self.config.video.width

    def pool_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Return the class token before the projection, which classification heads read."""
        return self.vision_model(frames)

    def encode_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Embed token ids, each row ended by the largest id of the vocabulary, to unit norm, at least float32."""
        return _to_unit_norm(self.project_text(token_ids))

    def project_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Do as `encode_video` without unit norm: what LaViLa scores EgoMCQ by."""
        return self.visual_projection(self.vision_model(frames))

    def project_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Do as `encode_text` without unit norm."""
        return self.text_projection(self.text_model(token_ids))

    @torch.no_grad()
    def clamp_logit_scale_(self) -> None:
        """Put the logit scale back within its bounds, in place; call it after each optimiser step."""
        self.logit_scale.clamp_(*self.logit_scale_bounds)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether a tower recomputes its layers in backward."""
        return self.text_model.encoder.gradient_checkpointing or self.vision_model.encoder.gradient_checkpointing

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation of the layers in backward on or off."""
        for tower in (self.text_model, self.vision_model):
            tower.encoder.gradient_checkpointing = enabled


def _to_unit_norm(features: Tensor) -> Tensor:
    # Half precision would leave norms off by 1e-3, which the angular margin's arc cosine enlarges.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
