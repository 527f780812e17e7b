"""Resample position and temporal embeddings to another image size or frame count."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def interpolate_temporal(embedding: Float[Tensor, "1 frames dim"], num_frames: int) -> Float[Tensor, "1 new dim"]:
    """Resample a temporal embedding linearly along time, as CLIP-ViP does; one frame reads the middle."""
    if embedding.shape[1] == num_frames:
        return embedding
    by_channel = rearrange(embedding, "1 frames dim -> 1 dim frames")
    resampled = F.interpolate(by_channel, size=num_frames, mode="linear", align_corners=False)
    return rearrange(resampled, "1 dim frames -> 1 frames dim")


def interpolate_positions(embedding: Float[Tensor, "tokens dim"], grid: int) -> Float[Tensor, "new dim"]:
    """Resample the patch positions to a `grid` x `grid` raster, bicubic; position 0, the class token's, stays."""
    side = round((embedding.shape[0] - 1) ** 0.5)
    if side == grid:
        return embedding
    raster = rearrange(embedding[1:], "(rows columns) dim -> 1 dim rows columns", rows=side)
    # Half precision has no bicubic kernel on CPU.
    resampled = F.interpolate(raster.float(), size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    patches = rearrange(resampled, "1 dim rows columns -> (rows columns) dim").to(embedding.dtype)
    return torch.cat([embedding[:1], patches])
