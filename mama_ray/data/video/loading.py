"""From the bytes of a clip to the model's frames: what training, evaluation and captioning call."""

from pathlib import Path

import numpy as np

from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.sampling import sample_timestamps
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig, transform_frames


def load_clip_frames(
    data: bytes | str | Path,
    *,
    num_frames: int,
    transform: TransformConfig,
    rng: np.random.Generator | None = None,
    decode: DecodeConfig | None = None,
) -> np.ndarray:
    """Sample, decode and transform, uint8 (num_frames, image_size, image_size, 3), RGB.

    `rng` None is evaluation: centres of equal segments, no random crop. With `rng` (see `row_rng`) moments and crop are
    random, and a pure function of it. Raises DecodeError with a readable reason for a video that cannot be used.
    """
    size = transform.image_size
    if transform.resize == "squash":
        decoder = VideoDecoder(data, width=size, height=size, config=decode)
    elif transform.resize == "center_crop" or rng is None:
        decoder = VideoDecoder(data, short_side=size, config=decode)
    else:
        # The smallest crop has 0.6 of the short side, so twice the size never scales a crop of a large video up.
        decoder = VideoDecoder(data, short_side=2 * size, config=decode)
    moments = sample_timestamps(decoder.duration_s, num_frames, start_s=decoder.start_s, rng=rng)
    frames = decoder.frames_at(moments)
    return transform_frames(frames, transform, rng=rng)
