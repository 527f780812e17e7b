"""The frames of a clip at the sampled moments, as the decoder gives them: without torch, for a child process."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.sampling import sample_timestamps
from mama_ray.data.video.settings import DecodeConfig


def sampled_frames(
    data: bytes | str | Path,
    *,
    num_frames: int,
    size: Mapping[str, int],
    rng: np.random.Generator | None = None,
    decode: DecodeConfig | None = None,
) -> np.ndarray:
    """Decode one frame of each of `num_frames` equal parts, uint8 (num_frames, height, width, 3), RGB.

    `size` has width and height, or short_side, as `VideoDecoder` takes them. `rng` None takes the centres.
    Raises DecodeError.
    """
    width, height, short_side = (size.get(name) for name in ("width", "height", "short_side"))
    decoder = VideoDecoder(data, width=width, height=height, short_side=short_side, config=decode)
    return decoder.frames_at(sample_timestamps(decoder.duration_s, num_frames, rng=rng))
