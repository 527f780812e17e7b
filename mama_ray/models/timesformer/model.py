"""LaViLa's dual encoder (arXiv 2212.04501): a TimeSformer for clips, CLIP's text tower or DistilBERT for texts.

The video tower has the names of the release, the text tower those of Hugging Face; `key_layouts.py` maps the release's.
The two towers never see each other's input, which the angular margin needs.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.data.video.settings import Interpolation
from mama_ray.models.clip_vip.model import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, LogitScaleConfig
from mama_ray.models.distilbert import PAD_ID, DistilBert
from mama_ray.models.dual_encoder import PooledEncoder
from mama_ray.models.text_encoder import TextEncoder
from mama_ray.models.timesformer.video_tower import AttentionKind, TimeStart, VideoTower, resample_temporal
from mama_ray.models.transformer import EncoderConfig

TextTower = Literal["clip", "distilbert"]

# LaViLa's start and bounds; its published recipes freeze it.
LOGIT_SCALE = LogitScaleConfig(init=math.log(1 / 0.07), max=math.log(100))


class TimesformerConfig(Config):
    """Everything that fixes the shapes of the model and how it reads pixels; the defaults are LaViLa's TSF-B."""

    video: EncoderConfig = EncoderConfig(width=768, num_layers=12, num_heads=12)
    """The video tower."""
    text: EncoderConfig = EncoderConfig(width=512, num_layers=12, num_heads=8)
    """The text tower."""
    attention: AttentionKind = "divided"
    """TimeSformer's, over time and then over space, or of all tokens at once."""
    text_tower: TextTower = "clip"
    """CLIP's, read at the end-of-text token, or DistilBERT, read at its first token."""
    dim: int = Field(default=256, gt=0, le=1 << 16)
    """Width of the joint feature space."""
    image_size: int = Field(default=224, gt=0, le=1 << 12)
    """Frame height and width in pixels; a multiple of patch_size."""
    patch_size: int = Field(default=16, gt=0, le=1 << 10)
    """Patch height and width in pixels."""
    num_frames: int = Field(default=4, gt=0, le=1 << 14)
    """Entries of the temporal embedding; fewer frames take its first ones, more interpolate it."""
    vocab_size: int = Field(default=49408, gt=1, le=1 << 22)
    """Token ids; of CLIP's the largest is end-of-text."""
    context_length: int = Field(default=77, gt=1, le=1 << 16)
    """Most tokens of a text."""
    num_text_positions: int = Field(default=512, gt=1, le=1 << 16)
    """Rows of DistilBERT's position table; CLIP's has context_length."""
    text_dropout: float = Field(default=0.1, ge=0, lt=1)
    """DistilBERT's, of hidden states and attention weights, in training; CLIP's has none."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth of the last block of the video tower, linearly less before: LaViLa fine-tunes with 0.1."""
    pixel_mean: tuple[float, float, float] = CLIP_PIXEL_MEAN
    """RGB mean, full scale 1; belongs to the weights, not to the data."""
    pixel_std: tuple[float, float, float] = CLIP_PIXEL_STD
    """RGB standard deviation, full scale 1."""
    resize: Literal["squash", "center_crop"] = "center_crop"
    """How evaluation makes frames square where nobody says otherwise: LaViLa's short side and centre."""
    interpolation: Interpolation = "bilinear"
    """With which filter frames are scaled: LaViLa's, which had no antialiasing where ours has."""
    logit_scale: LogitScaleConfig = LOGIT_SCALE
    """Start, bounds and freezing of the logit scale."""
    time_start: TimeStart = "zero_output"
    """How a new attention over time comes to give 0: its output projection is 0, or as in LaViLa its queries, keys and
    values are, of which queries and keys then never learn."""
    place_init_std: float | None = Field(default=None, gt=0)
    """Spread of the video's position and temporal embeddings at the start; null is CLIP's and zero for time."""
    gradient_checkpointing: bool = False
    """Recompute each layer in backward: less memory, about a third more time, the same gradients."""

    @property
    def tokenizer_kind(self) -> Literal["clip", "bert"]:
        """Whose tokens a fresh model reads."""
        return "bert" if self.text_tower == "distilbert" else "clip"

    @property
    def pad_id(self) -> int:
        """What fills a text up: [PAD], or end-of-text."""
        return PAD_ID if self.text_tower == "distilbert" else self.vocab_size - 1

    @model_validator(mode="after")
    def _sizes_fit(self) -> "TimesformerConfig":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size: got {self.image_size}, wanted a multiple of patch_size {self.patch_size}")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std: got {self.pixel_std}, wanted positive values")
        if self.text_tower == "distilbert" and self.context_length > self.num_text_positions:
            wanted = f"at most num_text_positions {self.num_text_positions}"
            raise ValueError(f"context_length: got {self.context_length}, wanted {wanted}")
        return self


class Timesformer(nn.Module, PooledEncoder):
    """Dual encoder; construct it from a config for a fresh start, or with `models.pretrained.from_pretrained`."""

    model_type: ClassVar[str] = "timesformer"

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VideoTower(
            config.video,
            kind=config.attention,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_frames=config.num_frames,
            pixel_mean=config.pixel_mean,
            pixel_std=config.pixel_std,
            drop_path=config.drop_path,
            time_start=config.time_start,
            place_init_std=config.place_init_std,
        )
        self.text_model = _build_text_tower(config)
        self.image_projection = nn.Parameter(torch.empty(config.video.width, config.dim))
        self.text_projection = nn.Parameter(torch.empty(config.text.width, config.dim))
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection, std=len(projection) ** -0.5)
        self.logit_scale = nn.Parameter(
            torch.tensor(config.logit_scale.init), requires_grad=not config.logit_scale.frozen
        )
        self.set_gradient_checkpointing(config.gradient_checkpointing)

    @property
    def logit_scale_bounds(self) -> tuple[float, float]:
        """Smallest and largest log scale."""
        return self.config.logit_scale.min, self.config.logit_scale.max

    @torch.no_grad()
    def lengthen_(self, num_frames: int) -> None:
        """Give each of more frames a temporal embedding to learn, in place; features stay, and fewer change nothing."""
        if num_frames > self.config.num_frames:
            old = self.visual.temporal_embed
            longer = resample_temporal(old, num_frames)
            self.visual.temporal_embed = nn.Parameter(longer, requires_grad=old.requires_grad)
            self.config = self.config.model_copy(update={"num_frames": num_frames})

    @property
    def pooled_width(self) -> int:
        """Channels of `pool_video`."""
        return self.config.video.width

    def forward(
        self, frames: Num[Tensor, "batch frames height width c"], token_ids: Int[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "texts dim"]]:
        """Return (video_features, text_features); the entry that DistributedDataParallel wraps."""
        return self.encode_video(frames), self.encode_text(token_ids)

    def encode_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Embed RGB clips with values 0 to 255 (uint8, or floats of that range) to unit norm, at least float32."""
        return _to_unit_norm(self.project_video(frames))

    def project_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Return what `encode_video` brings to unit norm, which LaViLa multiplies on EgoMCQ."""
        return self.pool_video(frames) @ self.image_projection

    def pool_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Return the class token before the projection, which classification heads read."""
        return self.visual(frames)

    def video_tokens(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch tokens dim"]:
        """Return the class token and all patches, frame by frame, before the projection, as narrators read them."""
        return self.visual.tokens(frames)

    def encode_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Embed token ids, each row filled up with the config's `pad_id`, to unit norm, at least float32."""
        return _to_unit_norm(self.project_text(token_ids))

    def project_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Return what `encode_text` brings to unit norm."""
        return self.text_model(token_ids) @ self.text_projection

    @torch.no_grad()
    def clamp_logit_scale_(self) -> None:
        """Put the logit scale back within its bounds, in place; call it after each optimiser step."""
        self.logit_scale.clamp_(*self.logit_scale_bounds)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether a tower recomputes its layers in backward."""
        return any(part.gradient_checkpointing for part in self._checkpointed())

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation of the layers in backward on or off."""
        for part in self._checkpointed():
            part.gradient_checkpointing = enabled

    def _checkpointed(self) -> list[nn.Module]:
        text = self.text_model
        return [self.visual, text.transformer if isinstance(text, DistilBert) else text.encoder]


def _build_text_tower(config: TimesformerConfig) -> TextEncoder | DistilBert:
    if config.text_tower == "clip":
        return TextEncoder(config.text, vocab_size=config.vocab_size, context_length=config.context_length)
    sizes = {"vocab_size": config.vocab_size, "num_positions": config.num_text_positions}
    return DistilBert(config.text, **sizes, dropout=config.text_dropout)


def _to_unit_norm(features: Tensor) -> Tensor:
    # Half precision would leave norms off by 1e-3, which the angular margin's arc cosine enlarges.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
