"""TimeSformer's video tower with LaViLa's residual, and the joint space-time ViT of AVION, under the release's names.

Tokens are [class token | patches of frame 0 | patches of frame 1 | ...], with one class token per clip. With divided
attention a patch sees the class token and first its own place in all frames, then its own frame; the class token sees
everything, both times. The residual of the attention over space is the block's input and not what time made of it, so
where the attention over time gives 0, as at its start, one frame has CLIP's own features. With joint attention every
token sees every one, in one attention.
"""

from functools import partial
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor, nn

from mama_ray.models.attention import AttentionPattern, attend, proxy_guided_attention
from mama_ray.models.interpolate import interpolate_temporal
from mama_ray.models.patches import PatchEmbedding, Patches
from mama_ray.models.recompute import run_layer
from mama_ray.models.stochastic_depth import drop_branch, rates_by_depth
from mama_ray.models.transformer import LAYER_NORM_EPS, EncoderConfig, Mlp

AttentionKind = Literal["divided", "joint"]
TimeStart = Literal["zero_output", "lavila"]
# Of the blocks and the final norm; `ln_pre` has CLIP's own in both.
BLOCK_EPS: dict[AttentionKind, float] = {"divided": 1e-6, "joint": LAYER_NORM_EPS}


class FusedAttention(nn.Module):
    """Query, key and value by one projection, an attention pattern, and the output projection."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], pattern: AttentionPattern, *, class_alone: bool = False
    ) -> Float[Tensor, "batch queries width"]:
        """Return all tokens, or with `class_alone` the class token alone, which sees all (queries = 1)."""
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        if class_alone:
            queries, pattern = queries[:, :1], attend
        return self.proj(pattern(queries, keys, values, self.num_heads))


class Block(nn.Module):
    """x' = x + space(norm1(x + time(norm3(x)))), then x' + MLP(norm2(x')); joint attention has no time.

    In training a clip may leave out space, or the MLP.
    """

    def __init__(self, config: EncoderConfig, kind: AttentionKind, drop_path: float) -> None:
        super().__init__()
        width, eps = config.width, BLOCK_EPS[kind]
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = FusedAttention(width, config.num_heads)
        self.timeattn = FusedAttention(width, config.num_heads) if kind == "divided" else None
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, width * config.mlp_ratio)
        self.norm3 = nn.LayerNorm(width, eps=eps) if kind == "divided" else None

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], num_frames: int, class_alone: bool = False
    ) -> Float[Tensor, "batch queries width"]:
        """All tokens, or with `class_alone` the class token alone (queries = 1)."""
        pattern: AttentionPattern = attend
        seen = hidden
        if self.timeattn is not None and self.norm3 is not None:
            num_places = (hidden.shape[1] - 1) // num_frames
            over_time = partial(proxy_guided_attention, num_proxies=1, num_frames=num_places)
            # Patches of one place lie together here, so that each place is one group of the attention.
            by_place = regroup(self.norm3(hidden), num_frames)
            seen = hidden + regroup(self.timeattn(by_place, over_time), num_places)
            pattern = partial(proxy_guided_attention, num_proxies=1, num_frames=num_frames)
        branch = self.attn(self.norm1(seen), pattern, class_alone=class_alone)
        hidden = (hidden[:, :1] if class_alone else hidden) + self._for_some_clips(branch)
        return hidden + self._for_some_clips(self.mlp(self.norm2(hidden)))

    def _for_some_clips(self, branch: Tensor) -> Tensor:
        return drop_branch(branch, self.drop_path if self.training else 0.0)


def regroup(tokens: Float[Tensor, "batch tokens width"], num_groups: int) -> Float[Tensor, "batch tokens width"]:
    """Put the patches, which lie group by group, in order of their place within the group; the class token stays first.

    With the number of places as that of groups it is its own inverse.
    """
    patches = rearrange(tokens[:, 1:], "batch (groups n) width -> batch (n groups) width", groups=num_groups)
    return torch.cat([tokens[:, :1], patches], dim=1)


class VideoTower(nn.Module):
    """Frames to the class token of the last block, or to all of its tokens."""

    def __init__(
        self,
        config: EncoderConfig,
        *,
        kind: AttentionKind,
        image_size: int,
        patch_size: int,
        num_frames: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        drop_path: float = 0.0,
        time_start: TimeStart = "zero_output",
        place_init_std: float | None = None,
    ) -> None:
        super().__init__()
        width, num_places = config.width, (image_size // patch_size) ** 2
        self.patches = Patches(image_size=image_size, patch_size=patch_size, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_places, width))
        self.temporal_embed = nn.Parameter(torch.empty(1, num_frames, width))
        self.patch_embed = nn.ModuleDict({"proj": PatchEmbedding(width, patch_size)})
        self.ln_pre = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        rates = rates_by_depth(drop_path, config.num_layers)
        self.blocks = nn.ModuleList(Block(config, kind, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=BLOCK_EPS[kind])
        self.gradient_checkpointing = False
        self._initialise(config, time_start, place_init_std)

    def forward(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Return the class token behind the final norm; of the last block only what it needs is computed."""
        hidden = self._through(frames, self.blocks[:-1])
        return self.norm(self._run(self.blocks[-1], hidden, frames.shape[1], True)).squeeze(1)

    def tokens(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch tokens dim"]:
        """Return all tokens behind the final norm: the class token, then the patches, frame by frame."""
        return self.norm(self._through(frames, self.blocks))

    def _through(self, frames: Tensor, blocks: nn.ModuleList) -> Float[Tensor, "batch tokens dim"]:
        hidden = self.ln_pre(self._embed(frames))
        for block in blocks:
            hidden = self._run(block, hidden, frames.shape[1])
        return hidden

    def _run(self, block: nn.Module, *args: object) -> Tensor:
        return run_layer(block, *args, recompute=self.gradient_checkpointing)

    def _embed(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch tokens dim"]:
        batch, num_frames = frames.shape[:2]
        tokens = self.patch_embed["proj"](self.patches(frames))
        tokens = tokens + (self.pos_embed[:, None, 1:] + self.temporal_at(num_frames)[:, :, None])
        tokens = rearrange(tokens, "batch frames n width -> batch (frames n) width")
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        return torch.cat([first.to(tokens.dtype), tokens], dim=1)

    def temporal_at(self, num_frames: int) -> Float[Tensor, "1 frames width"]:
        """Return the temporal embedding for another number of frames, as `resample_temporal` does."""
        return resample_temporal(self.temporal_embed, num_frames)

    @torch.no_grad()
    def _initialise(self, config: EncoderConfig, time_start: TimeStart, place_init_std: float | None) -> None:
        """Start as CLIP does, with an attention over time that gives 0."""
        into_width = config.width**-0.5
        onto_residual = into_width * (2 * config.num_layers) ** -0.5
        nn.init.normal_(self.cls_token, std=into_width)
        nn.init.normal_(self.pos_embed, std=into_width if place_init_std is None else place_init_std)
        nn.init.zeros_(self.temporal_embed)
        if place_init_std is not None:
            nn.init.normal_(self.temporal_embed, std=place_init_std)
        nn.init.kaiming_uniform_(self.patch_embed["proj"].weight, a=5**0.5)  # nn.Conv2d's own, as in CLIP
        for block in self.blocks:
            stds = {block.attn.qkv: into_width, block.attn.proj: onto_residual}
            stds |= {block.mlp.fc1: (2 * config.width) ** -0.5, block.mlp.fc2: onto_residual}
            for linear, std in stds.items():
                nn.init.normal_(linear.weight, std=std)
                nn.init.zeros_(linear.bias)
            if block.timeattn is not None:
                start_time_attention(block.timeattn, time_start)


@torch.no_grad()
def start_time_attention(attention: FusedAttention, start: TimeStart) -> None:
    """Let an attention give 0 at first.

    "zero_output": the output projection is 0. "lavila": queries, keys and values are 0 and the output projection is 1
    everywhere; then queries and keys have no gradient, ever, as each one's is a multiple of the other, and all channels
    of the values have the same, so that what is learned is one number per frame's mean.
    """
    is_lavila = start == "lavila"
    nn.init.normal_(attention.qkv.weight, std=0.0 if is_lavila else attention.proj.in_features**-0.5)
    nn.init.constant_(attention.proj.weight, float(is_lavila))
    nn.init.zeros_(attention.qkv.bias)
    nn.init.zeros_(attention.proj.bias)


def resample_temporal(embedding: Float[Tensor, "1 frames width"], num_frames: int) -> Float[Tensor, "1 new width"]:
    """Return a temporal embedding for another number of frames: the first ones of it, or linearly between them.

    LaViLa interpolates (1, frames, width) bilinearly; as the width stays, that is linear in time.
    """
    if num_frames <= embedding.shape[1]:
        return embedding[:, :num_frames]
    return interpolate_temporal(embedding, num_frames)
