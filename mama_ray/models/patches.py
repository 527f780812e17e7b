"""Decoded frames to patch embeddings, as CLIP's image transformers take them; the model owns its pixel constants."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Num
from torch import Tensor, nn

from mama_ray.errors import UserError

NUM_CHANNELS = 3
MAX_PIXEL = 255.0


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, computed as one matrix product on channels-last pixels."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, NUM_CHANNELS, patch_size, patch_size))

    def forward(self, patches: Float[Tensor, "... pixels"]) -> Float[Tensor, "... width"]:
        """Project patches whose pixels lie as (row, column, channel), the order of decoded frames."""
        return F.linear(patches, rearrange(self.weight, "width c row column -> width (row column c)"))


class Patches(nn.Module):
    """Frames cut into normalised patches; it has no weights, and its key set is empty."""

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.image_size, self.patch_size = image_size, patch_size
        # In the config and not in the state dict: the key set of the model stays the published one.
        mean, std = (torch.tensor(pixel_mean, dtype=torch.float64), torch.tensor(pixel_std, dtype=torch.float64))
        dtype = torch.get_default_dtype()
        scale, shift = (1 / (MAX_PIXEL * std)).to(dtype), (-mean / std).to(dtype)
        num_pixels = patch_size**2
        self.register_buffer("pixel_scale", repeat(scale, "c -> (n c)", n=num_pixels), persistent=False)
        self.register_buffer("pixel_shift", repeat(shift, "c -> (n c)", n=num_pixels), persistent=False)

    def forward(
        self, frames: Num[Tensor, "batch frames height width c"]
    ) -> Float[Tensor, "batch frames patches pixels"]:
        """Cut RGB frames of values 0 to 255 (uint8, or floats of that range); UserError for another size."""
        if list(frames.shape[2:]) != [self.image_size, self.image_size, NUM_CHANNELS]:
            raise UserError(
                "frames do not fit the video encoder",
                got=tuple(frames.shape),
                wanted=f"(batch, frames, {self.image_size}, {self.image_size}, {NUM_CHANNELS})",
                remedy="decode with the model's image_size, channels last",
            )
        # The re-ordering copy runs on bytes, before the conversion makes the pixels four times as large.
        patches = rearrange(
            frames,
            "batch frames (rows i) (columns j) c -> batch frames (rows columns) (i j c)",
            i=self.patch_size,
            j=self.patch_size,
        )
        return torch.addcmul(self.pixel_shift, patches.to(self.pixel_scale.dtype), self.pixel_scale)
