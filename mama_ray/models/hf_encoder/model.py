"""A dual encoder of transformers as one of ours: clips and token ids in, unit vectors of one space out.

The towers are transformers' own modules, under `hf.` in the state dict with their own names, so an export is the same
tensors under the names that transformers knows. What is ours: pixels are normalised here, frames become a clip
(`pooling.py`), and scale and bias of the logits are scalars, the scale a logarithm, whatever the folder has.
"""

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.data.video.settings import Interpolation
from mama_ray.errors import UserError
from mama_ray.models.attention import visible_tokens
from mama_ray.models.clip_vip.model import LogitScaleConfig
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.hf_encoder.architectures import ARCHITECTURES, build_hf_model, image_side
from mama_ray.models.hf_encoder.pooling import TemporalPooling
from mama_ray.models.hf_encoder.recompute import is_recomputing, recompute_layers

NUM_CHANNELS = 3
MAX_PIXEL = 255.0


class HfEncoderConfig(Config):
    """transformers' config, and how the folder wants pixels and texts."""

    hf: dict[str, Any]
    """The config.json of transformers' model."""
    dim: int = Field(gt=0, le=1 << 16)
    """Width of the joint feature space."""
    image_size: int = Field(gt=0, le=1 << 12)
    """Frame height and width in pixels."""
    num_frames: int = Field(default=12, gt=0, le=1 << 14)
    """Frames per clip; a video model's own number."""
    vocab_size: int = Field(gt=1, le=1 << 22)
    """Token ids."""
    context_length: int = Field(gt=1, le=1 << 16)
    """Most tokens of a text."""
    pad_id: int = Field(default=0, ge=0)
    """Token id that fills short texts up, where that makes a difference."""
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """RGB mean, full scale 1."""
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """RGB standard deviation, full scale 1."""
    resize: Literal["squash", "center_crop"] = "squash"
    """How the model's own preprocessing makes frames square; evaluation does so where nobody says otherwise."""
    interpolation: Interpolation = "bicubic"
    """With which filter it scales them."""
    temporal_layers: int = Field(default=0, ge=0, le=24)
    """Layers of the transformer over frames that is added to their mean; 0 is the mean. Image models only."""
    logit_scale: LogitScaleConfig = LogitScaleConfig()
    """Start, bounds and freezing of the logit scale."""
    gradient_checkpointing: bool = False
    """Recompute each layer in backward: less memory, about a third more time, the same gradients."""

    @model_validator(mode="after")
    def _fits_the_architecture(self) -> "HfEncoderConfig":
        model_type = self.hf.get("model_type")
        if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
            raise ValueError(f"hf.model_type: got {model_type}, wanted one of {', '.join(ARCHITECTURES)}")
        try:
            self._fits_the_weights(model_type)
        except (LookupError, TypeError) as error:  # a field that every such model has is not there, or of another kind
            raise ValueError(f"hf: got a config of {model_type} without {error}, wanted all of its fields") from None
        return self

    def _fits_the_weights(self, model_type: str) -> None:
        if ARCHITECTURES[model_type].takes_videos and self.temporal_layers:
            raise ValueError(f"temporal_layers: got {self.temporal_layers}, wanted 0: {model_type} sees whole videos")
        if ARCHITECTURES[model_type].has_fixed_frames and self.num_frames != self.hf["vision_config"]["num_frames"]:
            own = self.hf["vision_config"]["num_frames"]
            raise ValueError(f"num_frames: got {self.num_frames}, wanted {own} as {model_type}'s weights have")
        side = image_side(self.hf)
        if model_type == "siglip2":
            patch = self.hf["vision_config"]["patch_size"]
            if self.image_size % patch:
                raise ValueError(f"image_size: got {self.image_size}, wanted a multiple of {patch}")
        elif side not in (None, self.image_size):
            raise ValueError(f"image_size: got {self.image_size}, wanted {side} as {model_type}'s weights have")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std: got {self.pixel_std}, wanted positive values")
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id: got {self.pad_id}, wanted less than vocab_size {self.vocab_size}")


class HfEncoder(nn.Module, DualEncoder):
    """Dual encoder around a model of transformers; made by `models.pretrained.from_pretrained`."""

    model_type: ClassVar[str] = "hf_encoder"

    def __init__(self, config: HfEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.architecture = ARCHITECTURES[config.hf["model_type"]]
        self.hf = build_hf_model(config.hf, source="hf")
        self.pooling = (
            nn.Module()
            if self.architecture.takes_videos
            else TemporalPooling(config.dim, num_layers=config.temporal_layers, num_frames=config.num_frames)
        )
        start = config.logit_scale
        self.logit_scale = nn.Parameter(torch.tensor(start.init), requires_grad=not start.frozen)
        if self.architecture.bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(-10.0))  # SigLIP's own start
        std, mean = (torch.tensor(values, dtype=torch.float64) for values in (config.pixel_std, config.pixel_mean))
        dtype = torch.get_default_dtype()
        self.register_buffer("pixel_scale", (1 / (MAX_PIXEL * std)).to(dtype), persistent=False)
        self.register_buffer("pixel_shift", (-mean / std).to(dtype), persistent=False)
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
        size = self.config.image_size
        if list(frames.shape[2:]) != [size, size, NUM_CHANNELS]:
            raise UserError(
                "frames do not fit the video encoder",
                got=tuple(frames.shape),
                wanted=f"(batch, frames, {size}, {size}, {NUM_CHANNELS})",
                remedy="decode with the model's image_size, channels last",
            )
        pixels = torch.addcmul(self.pixel_shift, frames.to(self.pixel_scale.dtype), self.pixel_scale)
        features = _at_least_float32(self.architecture.video_features(self.hf, pixels))
        if not self.architecture.takes_videos:
            features = rearrange(features, "(batch frames) dim -> batch frames dim", batch=frames.shape[0])
            features = self.pooling(features)
        return F.normalize(features, dim=-1)

    def encode_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Embed token ids as the model's own tokenizer makes them to unit norm, at least float32; rows may be shorter
        than the context."""
        missing = self.config.context_length - token_ids.shape[1]
        if missing < 0:
            raise UserError(
                "more tokens than the text encoder has positions",
                got=token_ids.shape[1],
                wanted=f"at most {self.config.context_length}",
                remedy="tokenize with the model's context_length",
            )
        mask = visible_tokens(token_ids, self.config.pad_id).long() if self.architecture.text == "mask" else None
        if self.architecture.text == "fill" and missing:
            token_ids = F.pad(token_ids, (0, missing), value=self.config.pad_id)
        features = self.architecture.text_features(self.hf, token_ids, mask)
        return F.normalize(_at_least_float32(features), dim=-1)

    @torch.no_grad()
    def clamp_logit_scale_(self) -> None:
        """Put the logit scale back within its bounds, in place; call it after each optimiser step."""
        self.logit_scale.clamp_(*self.logit_scale_bounds)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in backward."""
        return is_recomputing(self)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation of the layers in backward on or off."""
        recompute_layers(self, enabled)


def log_scale_start() -> float:
    """Return CLIP's start of the log scale, for models that have none of their own."""
    return math.log(1 / 0.07)


def _at_least_float32(features: Tensor) -> Tensor:
    # Half precision would leave norms off by 1e-3, which the angular margin's arc cosine enlarges.
    return features.to(torch.promote_types(features.dtype, torch.float32))
