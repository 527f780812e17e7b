"""Everything that fixes the shapes of a gated narrator, and how it reads pixels and tokens."""

from typing import Literal

from pydantic import Field, model_validator

from mama_ray.config import Config
from mama_ray.data.video.settings import Interpolation
from mama_ray.models.clip_vip.model import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from mama_ray.models.timesformer.video_tower import AttentionKind, TimeStart
from mama_ray.models.transformer import EncoderConfig

Activation = Literal["gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu", "tanh"]
POOLER_HEAD_WIDTH = 64


class Gpt2Config(Config):
    """Size of a GPT-2; the defaults are the smallest released one, of 124,439,808 parameters."""

    width: int = Field(768, gt=0, le=1 << 16)
    """Channels per token; a multiple of num_heads."""
    num_layers: int = Field(12, gt=0, le=200)
    """Transformer layers."""
    num_heads: int = Field(12, gt=0, le=1 << 12)
    """Attention heads, of self-attention and of cross-attention."""
    inner_width: int | None = Field(None, gt=0, le=1 << 20)
    """Hidden width of the language model's own MLP; null is four times the width."""
    vocab_size: int = Field(50257, gt=1, le=1 << 22)
    """Token ids."""
    num_positions: int = Field(1024, gt=1, le=1 << 16)
    """Rows of the position table."""
    activation: Activation = "gelu_new"
    """Of the language model's own MLP; the gated blocks have the squared ReLU."""
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    """Rate at which embedded tokens' channels are dropped in training; a frozen language model drops too."""
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    """Rate at which attention weights are dropped in training."""
    residual_dropout: float = Field(0.1, ge=0, lt=1)
    """Rate at which channels of each branch are dropped in training."""
    layer_norm_eps: float = Field(1e-5, gt=0)
    """Added to the variance in layer norms."""
    scale_attention: bool = True
    """Whether scores are divided by the root of the head's width."""
    scale_by_layer: bool = False
    """Whether they are divided by the layer's number as well, from 1."""
    is_tied: bool = True
    """Whether the output matrix is that of the token embeddings."""
    init_std: float = Field(0.02, gt=0)
    """Spread of new weights; of those onto the residual it is divided by sqrt(2 num_layers)."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Gpt2Config":
        if self.width % self.num_heads:
            raise ValueError(f"width: got {self.width}, wanted a multiple of num_heads {self.num_heads}")
        return self


class GatedNarratorConfig(Config):
    """A video tower, an attention pooler and a GPT-2 with gated cross-attention; the defaults are TSF-B + gpt2."""

    video: EncoderConfig = EncoderConfig(width=768, num_layers=12, num_heads=12)
    """The video tower."""
    language: Gpt2Config = Gpt2Config()
    """The language model."""
    attention: AttentionKind = "divided"
    """The video tower's: over time and then over space, or of all tokens at once."""
    image_size: int = Field(default=224, gt=0, le=1 << 12)
    """Frame height and width in pixels; a multiple of patch_size."""
    patch_size: int = Field(default=16, gt=0, le=1 << 10)
    """Patch height and width in pixels."""
    num_frames: int = Field(default=4, gt=0, le=1 << 14)
    """Entries of the temporal embedding; fewer frames take its first ones, more interpolate it."""
    pixel_mean: tuple[float, float, float] = CLIP_PIXEL_MEAN
    """RGB mean, full scale 1; belongs to the weights, not to the data."""
    pixel_std: tuple[float, float, float] = CLIP_PIXEL_STD
    """RGB standard deviation, full scale 1."""
    interpolation: Interpolation = "bilinear"
    """With which filter frames are scaled: that of the video tower's training, LaViLa's here."""
    time_start: TimeStart = "zero_output"
    """How a new attention over time comes to give 0."""
    place_init_std: float | None = Field(default=None, gt=0)
    """Spread of the video's position and temporal embeddings at the start; null is CLIP's and zero for time."""
    num_queries: int = Field(default=256, gt=0, le=1 << 16)
    """Learned queries of the pooler: visual tokens that the language model sees."""
    pooler_heads: int = Field(default=12, gt=0, le=1 << 10)
    """The pooler's attention heads, each 64 wide."""
    cross_every: int = Field(default=1, gt=0, le=200)
    """A gated block stands before each layer whose number, from 0, this divides."""
    context_length: int = Field(default=77, gt=1, le=1 << 16)
    """Most tokens of a caption, those that begin and end it included."""
    bos_id: int = Field(default=50256, ge=0, le=1 << 22)
    """The token that begins a caption; GPT-2 has one for both, <|endoftext|>."""
    eos_id: int = Field(default=50256, ge=0, le=1 << 22)
    """The token that ends a caption."""
    gradient_checkpointing: bool = False
    """Recompute each layer in backward: less memory, about a third more time, the same gradients."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "GatedNarratorConfig":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size: got {self.image_size}, wanted a multiple of patch_size {self.patch_size}")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std: got {self.pixel_std}, wanted positive values")
        if self.context_length > self.language.num_positions:
            wanted = f"at most language.num_positions {self.language.num_positions}"
            raise ValueError(f"context_length: got {self.context_length}, wanted {wanted}")
        for name in ("bos_id", "eos_id"):
            if getattr(self, name) >= self.language.vocab_size:
                wanted = f"below language.vocab_size {self.language.vocab_size}"
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted {wanted}")
        return self

    def crosses(self, layer: int) -> bool:
        """Tell whether a gated block stands before a layer, counted from 0."""
        return layer % self.cross_every == 0
