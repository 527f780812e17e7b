"""VIOLET's video tokens: Video Swin's, with a class token in front of each frame and with the places of both."""

import torch
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.bert import INIT_STD
from mama_ray.models.violet.swin import SwinConfig, VideoSwin


class FrameEncoder(nn.Module):
    """Frames to [class token | patches] of each frame, frame-major, in the width of the fusion encoder."""

    def __init__(
        self,
        config: SwinConfig,
        width: int,
        *,
        image_size: int,
        max_frames: int,
        max_grid: int,
        has_order: bool,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.emb_cls = nn.Parameter(INIT_STD * torch.randn(1, 1, 1, width))
        self.emb_pos = nn.Parameter(INIT_STD * torch.randn(1, 1, 1 + max_grid**2, width))
        self.emb_len = nn.Parameter(INIT_STD * torch.randn(1, max_frames, 1, width))
        # Stands in for a frame's place where frames are shuffled and their order is to be told, a task of
        # pre-training: here it is kept for the file and read by nothing.
        order = nn.Parameter(INIT_STD * torch.randn(1, 1, 1, width), requires_grad=False) if has_order else None
        self.register_parameter("emb_odr", order)
        self.swin = VideoSwin(config, image_size=image_size, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.fc = nn.Linear(config.width, width) if config.width != width else nn.Identity()
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch tokens dim"]:
        """Encode up to `max_frames` frames per clip."""
        num_frames, most = frames.shape[1], self.emb_len.shape[1]
        if num_frames > most:
            raise UserError(
                "more frames than the model has places for",
                got=num_frames,
                wanted=f"at most {most}",
                remedy="sample fewer frames per clip",
            )
        patches = rearrange(
            self.fc(self.swin(frames)), "batch frames rows columns dim -> batch frames (rows columns) dim"
        )
        tokens = torch.cat([self.emb_cls.expand(len(patches), num_frames, -1, -1).to(patches.dtype), patches], dim=2)
        tokens = tokens + (self.emb_pos[:, :, : tokens.shape[2]] + self.emb_len[:, :num_frames])
        return self.norm(tokens).flatten(1, 2)
