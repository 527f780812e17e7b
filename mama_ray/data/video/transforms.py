"""From decoded frames to the square the model takes.

All work on uint8 frames (frames, height, width, 3) of one clip at once; the model owns mean, std and the conversion to
float. There is no horizontal flip anywhere: left and right are words. Source: CLIP-ViP squashes; LaViLa takes the short
side and the centre in evaluation and one random crop per clip, scale 0.5-1 and ratio 3/4-4/3, in training; VIOLET the
short side and the centre, or in training a square of each frame at random, of which a clip here has one.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field

from mama_ray.config import AddedLater, Config
from mama_ray.data.video.settings import Interpolation, Resize

CROP_SCALE = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10  # torchvision's number; after it the centre is taken


class TransformConfig(Config):
    """How frames become squares."""

    image_size: int = Field(default=224, ge=1)
    """Side of the frames in pixels."""
    resize: Resize = "squash"
    """squash: both sides to image_size, whatever the aspect; center_crop: short side, then the centre; random_crop: in
    training short side, then a square at random; random_resized_crop: in training a crop of random size and place. A
    clip has one crop, and evaluation takes the centre."""
    interpolation: AddedLater[Interpolation] = "bicubic"
    """The filter, always with antialiasing: what the model was trained with."""

    def __str__(self) -> str:
        """Return the way frames become squares, as a result names it."""
        return self.resize if self.interpolation == "bicubic" else f"{self.resize}, {self.interpolation}"


def transform_frames(frames: np.ndarray, config: TransformConfig, *, rng: np.random.Generator | None) -> np.ndarray:
    """Return uint8 (frames, image_size, image_size, 3); `rng` None is evaluation, where nothing is random."""
    if config.resize == "squash":
        return resize_frames(frames, config.image_size, config.image_size, config.interpolation)
    if config.resize == "center_crop" or rng is None:
        return center_crop(frames, config.image_size, config.interpolation)
    crop = random_crop if config.resize == "random_crop" else random_resized_crop
    return crop(frames, config.image_size, rng, config.interpolation)


def resize_frames(frames: np.ndarray, height: int, width: int, mode: Interpolation = "bicubic") -> np.ndarray:
    """Scale to (height, width) with antialiasing."""
    if frames.shape[1:3] == (height, width):
        return frames
    channels_first = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w")
    scaled = F.interpolate(channels_first, size=(height, width), mode=mode, antialias=True)
    return np.ascontiguousarray(rearrange(scaled, "t c h w -> t h w c").numpy())


def center_crop(frames: np.ndarray, size: int, mode: Interpolation = "bicubic") -> np.ndarray:
    """Scale the short side to `size`, then take the square in the middle."""
    scaled = _scale_short_side(frames, size, mode)
    top, left = (scaled.shape[1] - size) // 2, (scaled.shape[2] - size) // 2
    return np.ascontiguousarray(scaled[:, top : top + size, left : left + size])


def random_crop(frames: np.ndarray, size: int, rng: np.random.Generator, mode: Interpolation = "bicubic") -> np.ndarray:
    """Scale the short side to `size`, then take one square at random, the same for every frame of the clip."""
    scaled = _scale_short_side(frames, size, mode)
    top, left = (int(rng.integers(0, side - size, endpoint=True)) for side in scaled.shape[1:3])
    return np.ascontiguousarray(scaled[:, top : top + size, left : left + size])


def _scale_short_side(frames: np.ndarray, size: int, mode: Interpolation) -> np.ndarray:
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    return resize_frames(frames, max(size, round(height * scale)), max(size, round(width * scale)), mode)


def random_resized_crop(
    frames: np.ndarray, size: int, rng: np.random.Generator, mode: Interpolation = "bicubic"
) -> np.ndarray:
    """Take one random crop, the same for every frame of the clip, and scale it to a square of `size`."""
    top, left, height, width = sample_crop(frames.shape[1], frames.shape[2], rng)
    return resize_frames(frames[:, top : top + height, left : left + width], size, size, mode)


def sample_crop(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) of a crop: area uniform in CROP_SCALE of the frame, ratio log-uniform in
    CROP_RATIO."""
    log_ratio = (math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]))
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*CROP_SCALE)
        ratio = math.exp(rng.uniform(*log_ratio))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height, endpoint=True))
            left = int(rng.integers(0, width - crop_width, endpoint=True))
            return top, left, crop_height, crop_width
    # A very long frame: the largest centred crop whose ratio is allowed.
    crop_width = min(width, round(height * CROP_RATIO[1]))
    crop_height = min(height, round(width / CROP_RATIO[0]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
