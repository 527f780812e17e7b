"""From the bytes of a clip to the model's frames: what training, evaluation and captioning call."""

from pathlib import Path

import numpy as np

from mama_ray.data.video import guarded
from mama_ray.data.video.sampled import sampled_frames
from mama_ray.data.video.sampling import draw_offsets
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig, transform_frames

_UNSCALED_SIDE = 2160  # up to 4K frames leave the decoder as they are; beyond, a clip would take gigabytes


def load_clip_frames(
    data: bytes | str | Path,
    *,
    num_frames: int,
    transform: TransformConfig,
    rng: np.random.Generator | None = None,
    decode: DecodeConfig | None = None,
    is_guarded: bool = True,
) -> np.ndarray:
    """Sample, decode and transform, uint8 (num_frames, image_size, image_size, 3), RGB.

    `rng` None is evaluation: centres of equal segments, no random crop. With `rng` (see `row_rng`) moments and crop are
    random, and a pure function of it. Decoding is done in a process of its own (`guarded.py`), unless `is_guarded` says
    that this one may be lost. Raises DecodeError with a readable reason for a video that cannot be used.
    """
    size = decoded_size(transform, at_random=rng is not None)
    read = guarded.sampled_frames if is_guarded else sampled_frames
    frames = read(data, num_frames=num_frames, size=size, offsets=draw_offsets(num_frames, rng), decode=decode)
    return transform_frames(frames, transform, rng=rng)


def decoded_size(transform: TransformConfig, *, at_random: bool) -> dict[str, int]:
    """Return the size, in words of `VideoDecoder`, at which frames leave the decoder to be transformed."""
    size = transform.image_size
    if transform.interpolation != "bicubic":  # which is the decoder's: others are left to the transform
        return {"short_side": max(2 * size, _UNSCALED_SIDE)}
    if transform.resize == "squash":
        return {"width": size, "height": size}
    if transform.resize == "center_crop" or not at_random:
        return {"short_side": size}
    # The smallest crop has 0.6 of the short side, so twice the size never scales a crop of a large video up.
    return {"short_side": 2 * size}
