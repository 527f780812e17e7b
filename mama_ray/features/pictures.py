"""How a model of `transformers` wants its pictures: size and constants, from its preprocessor_config.json.

Its own image processors are not called: those of today need torchvision.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.models.weight_files import read_json

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NAME = "preprocessor_config.json"
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class PictureInput:
    """Size and constants of a model's pictures.

    Attributes:
        height, width: of a square or another fixed size that pictures are squashed to; None with `short_side`.
        short_side, long_side: in proportion, as far as the longer side stays within the second.
        mean, std: RGB, full scale 1.
        mode: of the resampling.
    """

    height: int | None = None
    width: int | None = None
    short_side: int | None = None
    long_side: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    mode: str = "bilinear"

    @property
    def decoded_side(self) -> int:
        """Shorter side at which a decoder loses nothing that the model would see."""
        return self.short_side or max(self.height or 0, self.width or 0)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) to which a picture is scaled."""
        if self.short_side is None:
            assert self.height and self.width
            return self.height, self.width
        longer, shorter = max(height, width), min(height, width)
        short = self.short_side
        if self.long_side is not None:
            short = min(short, max(1, round(self.long_side * shorter / longer)))
        long = max(1, int(short * longer / shorter))
        return (short, long) if height <= width else (long, short)

    def prepare(self, frames: UInt8[np.ndarray, "batch height width 3"]) -> Float[Tensor, "batch 3 h w"]:
        """Scale and normalise; float32."""
        pixels = rearrange(torch.from_numpy(np.array(frames)), "b h w c -> b c h w").float()
        size = self.size_of(*pixels.shape[-2:])
        if size != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(pixels, size=size, mode=self.mode, antialias=True).clamp(0, 255)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std


def read_picture_input(directory: Path, default: PictureInput) -> PictureInput:
    """Read a folder's preprocessor_config.json over `default`, which a folder without one has. UserError for values
    that are none."""
    if not (directory / _NAME).is_file():
        return default
    content = read_json(directory / _NAME)
    try:
        found = replace(default, **_size(content)) if content.get("size") is not None else default
        if content.get("do_normalize") is False:
            return replace(found, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        mean, std = (
            tuple(float(value) for value in content.get(name) or given)
            for name, given in (("image_mean", found.mean), ("image_std", found.std))
        )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"image_mean {mean}, image_std {std}")
        return replace(found, mean=mean, std=std)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"{directory / _NAME} is not usable", got=str(error), wanted="size, image_mean and image_std of pictures"
        ) from error


def _size(content: dict[str, Any]) -> dict[str, int | None]:
    """Return the fields of PictureInput that say the size, in all the ways that files have it."""
    size = content["size"]
    if isinstance(size, int):
        size = {"shortest_edge": size, "longest_edge": content.get("max_size")}
    known = {"height": "height", "width": "width", "shortest_edge": "short_side", "longest_edge": "long_side"}
    fields: dict[str, int | None] = dict.fromkeys(known.values())
    for name, value in size.items():
        if value is not None and (isinstance(value, bool) or not 1 <= value <= _LARGEST_SIDE or value != int(value)):
            raise ValueError(f"size.{name} = {value}")
        fields[known[name]] = value
    if fields["short_side"] is None and not (fields["height"] and fields["width"]):
        raise ValueError(f"size = {size}")
    return fields
