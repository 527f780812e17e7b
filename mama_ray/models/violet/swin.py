"""Video Swin (arXiv 2106.13230) as VIOLET has it: every frame keeps its tokens, since time is never strided.

The parameter names are those of its release. A patch is 2 frames deep: a frame's tokens read the frame behind it, too,
and the last one a frame of zeros.
"""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.errors import UserError
from mama_ray.models.attention import window_attention
from mama_ray.models.bert import INIT_STD
from mama_ray.models.recompute import run_layer
from mama_ray.models.stochastic_depth import drop_branch, rates_by_depth
from mama_ray.models.violet.windows import (
    Size,
    cut_windows,
    fit_window,
    join_windows,
    num_biases,
    pad_to_windows,
    relative_position_index,
    shift_mask,
)

NUM_CHANNELS = 3
MAX_PIXEL = 255.0
PATCH_FRAMES = 2


class SwinConfig(Config):
    """Size of a Video Swin; the defaults are those of Swin-B."""

    embed_dim: int = Field(default=128, gt=0, le=1 << 12)
    """Channels per token in the first stage; each further stage doubles them and halves rows and columns."""
    depths: tuple[int, ...] = Field(default=(2, 2, 18, 2), min_length=1, max_length=6)
    """Blocks of each stage; every second one shifts its windows."""
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    """Attention heads of each stage."""
    window: tuple[int, int, int] = (8, 7, 7)
    """Frames, rows and columns of a window, in tokens; a smaller clip shrinks it."""
    patch_size: int = Field(default=4, gt=0, le=1 << 8)
    """Patch height and width in pixels."""
    mlp_ratio: int = Field(default=4, gt=0, le=64)
    """Hidden width of the MLP over the width."""
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    """Rate at which the last block is left out for a clip in training; it grows linearly from 0."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "SwinConfig":
        if len(self.num_heads) != len(self.depths):
            raise ValueError(f"num_heads: got {self.num_heads}, wanted one for each of the {len(self.depths)} stages")
        if not all(0 < depth <= 100 for depth in self.depths):
            raise ValueError(f"depths: got {self.depths}, wanted 1 to 100 blocks per stage")
        if not all(0 < side <= 64 for side in self.window):
            raise ValueError(f"window: got {self.window}, wanted 1 to 64 tokens along each axis")
        for stage, heads in enumerate(self.num_heads):
            width = self.embed_dim << stage
            if heads < 1 or width % heads:
                raise ValueError(f"num_heads: got {heads}, wanted a divisor of the width {width} of stage {stage}")
        return self

    @property
    def width(self) -> int:
        """Channels per token at the end."""
        return self.embed_dim << (len(self.depths) - 1)

    @property
    def stride(self) -> int:
        """Pixels per token at the end, along rows and columns."""
        return self.patch_size << (len(self.depths) - 1)


class PatchEmbedding(nn.Module):
    """Pixels to normed tokens: a convolution over 2 frames, computed as one matrix product."""

    def __init__(
        self, config: SwinConfig, pixel_mean: tuple[float, float, float], pixel_std: tuple[float, float, float]
    ) -> None:
        super().__init__()
        side = config.patch_size
        self.side = side
        self.proj = nn.Conv3d(NUM_CHANNELS, config.embed_dim, (PATCH_FRAMES, side, side))  # for its two parameters
        self.norm = nn.LayerNorm(config.embed_dim)
        mean, std = np.array(pixel_mean), np.array(pixel_std)
        for name, values in (("pixel_scale", 1 / (MAX_PIXEL * std)), ("pixel_shift", -mean / std)):
            one_per_number = torch.tensor(np.tile(values, side**2), dtype=torch.get_default_dtype())
            self.register_buffer(name, one_per_number, persistent=False)

    def forward(
        self, frames: Num[Tensor, "batch frames height width c"]
    ) -> Float[Tensor, "batch frames rows columns dim"]:
        """Embed RGB frames of values 0 to 255."""
        patches = rearrange(
            frames,
            "batch frames (rows i) (columns j) c -> batch frames rows columns (i j c)",
            i=self.side,
            j=self.side,
        )
        pixels = torch.addcmul(self.pixel_shift, patches.to(self.pixel_scale.dtype), self.pixel_scale)
        following = torch.cat([pixels[:, 1:], torch.zeros_like(pixels[:, :1])], dim=1)
        weight = rearrange(self.proj.weight, "dim c time i j -> dim (time i j c)")
        return self.norm(F.linear(torch.cat([pixels, following], dim=-1), weight, self.proj.bias))


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each offset of two tokens."""

    def __init__(self, width: int, num_heads: int, window: Size) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty(num_biases(window), num_heads))
        nn.init.normal_(self.relative_position_bias_table, std=INIT_STD)
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        windows: Float[Tensor, "batch windows tokens width"],
        mask: Float[Tensor, "windows 1 tokens tokens"] | None,
    ) -> Float[Tensor, "batch windows tokens width"]:
        """Attend; `mask` is added to the bias."""
        num_tokens = windows.shape[2]
        # Of a shrunk window too, the release takes the index of its first tokens in the full one.
        index = self.relative_position_index[:num_tokens, :num_tokens]
        bias = rearrange(self.relative_position_bias_table[index], "queries keys heads -> 1 heads queries keys")
        qkv = self.qkv(windows)
        bias = (bias if mask is None else bias + mask).to(qkv.dtype)
        return self.proj(window_attention(qkv, bias))


class SwinMlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(hidden)))


class SwinBlock(nn.Module):
    """x + attention in windows(LN(x)), then x + MLP(LN(x)); in training a clip may leave either out."""

    def __init__(
        self, width: int, num_heads: int, *, window: Size, shifts: bool, mlp_ratio: int, drop_path: float
    ) -> None:
        super().__init__()
        self.window, self.shifts, self.drop_path = window, shifts, drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, num_heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwinMlp(width, width * mlp_ratio)

    def forward(
        self, hidden: Float[Tensor, "batch frames rows columns width"], mask: Tensor | None
    ) -> Float[Tensor, "batch frames rows columns width"]:
        """`mask` is `shift_mask` of the stage; a block that does not shift leaves it."""
        hidden = hidden + self._for_some_clips(self._attend(self.norm1(hidden), mask))
        return hidden + self._for_some_clips(self.mlp(self.norm2(hidden)))

    def _attend(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        frames, rows, columns = clip = tokens.shape[1:4]
        window, shift = fit_window(clip, self.window, shifts=self.shifts)
        tokens = pad_to_windows(tokens, window)
        padded = tokens.shape[1:4]
        if any(shift):
            tokens = tokens.roll([-step for step in shift], dims=(1, 2, 3))
        windows = self.attn(cut_windows(tokens, window), mask if any(shift) else None)
        tokens = join_windows(windows, window, padded)
        if any(shift):
            tokens = tokens.roll(shift, dims=(1, 2, 3))
        return tokens[:, :frames, :rows, :columns]

    def _for_some_clips(self, branch: Tensor) -> Tensor:
        return drop_branch(branch, self.drop_path if self.training else 0.0)


class PatchMerging(nn.Module):
    """Four neighbouring tokens of a frame become one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, hidden: Float[Tensor, "batch frames rows columns width"]) -> Tensor:
        return self.reduction(
            self.norm(
                rearrange(
                    hidden,
                    "batch frames (rows i) (columns j) width -> batch frames rows columns (j i width)",
                    i=2,
                    j=2,
                )
            )
        )


class SwinStage(nn.Module):
    """Blocks of one width, then the step to the next."""

    def __init__(self, config: SwinConfig, stage: int, drop_paths: list[float]) -> None:
        super().__init__()
        width = config.embed_dim << stage
        self.window = config.window
        self.blocks = nn.ModuleList(
            SwinBlock(
                width,
                config.num_heads[stage],
                window=config.window,
                shifts=position % 2 == 1,
                mlp_ratio=config.mlp_ratio,
                drop_path=drop_path,
            )
            for position, drop_path in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(width) if stage + 1 < len(config.depths) else None
        self.gradient_checkpointing = False

    def forward(self, hidden: Tensor) -> Tensor:
        clip = hidden.shape[1:4]
        window, shift = fit_window(clip, self.window, shifts=True)
        padded = tuple(length + -length % size for length, size in zip(clip, window, strict=True))
        mask = shift_mask(padded, window, shift, hidden)
        for block in self.blocks:
            hidden = run_layer(block, hidden, mask, recompute=self.gradient_checkpointing)
        return hidden if self.downsample is None else self.downsample(hidden)


class VideoSwin(nn.Module):
    """Frames to the normed tokens of the last stage, frame by frame."""

    def __init__(
        self,
        config: SwinConfig,
        *,
        image_size: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch_embed = PatchEmbedding(config, pixel_mean, pixel_std)
        rates = iter(rates_by_depth(config.drop_path, sum(config.depths)))
        self.layers = nn.ModuleList(
            SwinStage(config, stage, [next(rates) for _ in range(depth)]) for stage, depth in enumerate(config.depths)
        )
        self.norm = nn.LayerNorm(config.width)
        self._initialise()

    def forward(
        self, frames: Num[Tensor, "batch frames height width c"]
    ) -> Float[Tensor, "batch frames rows columns dim"]:
        """Encode any number of frames per clip."""
        wanted = (self.image_size, self.image_size, NUM_CHANNELS)
        if tuple(frames.shape[2:]) != wanted:
            raise UserError(
                "frames do not fit the video encoder",
                got=tuple(frames.shape),
                wanted=f"(batch, frames, {', '.join(map(str, wanted))})",
                remedy="decode with the model's image_size, channels last",
            )
        hidden = self.patch_embed(frames)
        for stage in self.layers:
            hidden = stage(hidden)
        return self.norm(hidden)

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
