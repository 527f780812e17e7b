"""The frames that are asked of a clip, as the decoder gives them: without torch, for a child process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mama_ray.data.region_features.clips import clip_frame_indices
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.sampling import sample_between_ends, sample_frame_indices, sample_timestamps
from mama_ray.data.video.settings import DecodeConfig

# A frame of one line, within the limit of pixels, would be scaled up to gigabytes before its centre is taken.
_MOST_ASPECT = 100


def sampled_frames(
    data: bytes | str | Path,
    *,
    num_frames: int,
    size: Mapping[str, int],
    offsets: Sequence[float] | None = None,
    decode: DecodeConfig | None = None,
) -> np.ndarray:
    """Decode one frame of each of `num_frames` equal parts, or what `decode.sampling` says, uint8 (num_frames, height,
    width, 3), RGB.

    `size` has width and height, or short_side, as `VideoDecoder` takes them. `offsets` are those of
    function of `sampling.py` that chooses, those of evaluation by default. Raises DecodeError.
    """
    width, height, short_side = (size.get(name) for name in ("width", "height", "short_side"))
    decoder = VideoDecoder(data, width=width, height=height, short_side=short_side, config=decode)
    if short_side is not None:
        refuse_long_frames(decoder.width, decoder.height)
    return decoder.frames_by_index(_one_of_each_part(decoder, num_frames, offsets, decode))


def located_frames(
    data: bytes | str | Path, *, num_frames: int, size: Mapping[str, int], decode: DecodeConfig | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode what `sampled_frames` gives at the centres of the parts, and tell where in the clip it is.

    `size` has short_side or long_side. Returns uint8 (num_frames, height, width, 3), RGB; the numbers of the frames,
    int64 (num_frames,), ascending, repeated where the clip has fewer; and float64 (num_frames,), the seconds from the
    clip's first frame to each. Raises DecodeError.
    """
    decoder = VideoDecoder(data, short_side=size.get("short_side"), long_side=size.get("long_side"), config=decode)
    refuse_long_frames(decoder.width, decoder.height)
    indices = _one_of_each_part(decoder, num_frames, None, decode)
    return decoder.frames_by_index(indices), indices, decoder.timestamps_s[indices] - decoder.timestamps_s[0]


def _one_of_each_part(
    decoder: VideoDecoder, num_frames: int, offsets: Sequence[float] | None, decode: DecodeConfig | None
) -> np.ndarray:
    if decode is not None and decode.sampling != "times":
        sample = sample_frame_indices if decode.sampling == "numbers" else sample_between_ends
        return sample(0, decoder.num_frames, num_frames, offsets=offsets)
    return decoder.indices_at(
        sample_timestamps(decoder.duration_s, num_frames, start_s=decoder.start_s, offsets=offsets)
    )


def refuse_long_frames(width: int, height: int) -> None:
    """Raise DecodeError for frames of which a square would be scaled up beyond measure."""
    longer, shorter = max(width, height), min(width, height)
    if longer > _MOST_ASPECT * shorter:
        got, limit = f"{width}x{height}", f"{_MOST_ASPECT} : 1"
        raise DecodeError("the frames are too long for their width", got=got, limit=limit)


def spread_frames(
    data: bytes | str | Path, *, num_frames: int, fit: tuple[int, int], decode: DecodeConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Decode `num_frames` evenly spread frames, or all where the clip has fewer, each to fill `fit` (width, height) in
    one of them.

    Returns uint8 (frames, height, width, 3), RGB, and their numbers in the clip, int64 (frames,). Raises DecodeError.
    """
    decoder = VideoDecoder(data, fit=fit, config=decode)
    num_frames = min(num_frames, decoder.num_frames)
    indices = ((np.arange(num_frames) + 0.5) * decoder.num_frames / num_frames).astype(np.int64)
    return decoder.frames_by_index(indices), indices


def clip_frames(
    data: bytes | str | Path,
    *,
    num_clips: int,
    frames_per_clip: int,
    short_side: int,
    decode: DecodeConfig | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Decode the frames that `clip_frame_indices` names, each once, the shorter side of `short_side` at most.

    Returns uint8 (frames, height, width, 3), RGB, in order of presentation; where each frame of each clip is among
    them, int64 (clips, frames); and the (width, height) at which the video is shown. Raises DecodeError, for a video
    with fewer frames than clips too.
    """
    decoder = VideoDecoder(data, short_side=short_side, config=decode)
    try:
        indices = clip_frame_indices(decoder.num_frames, num_clips=num_clips, frames_per_clip=frames_per_clip)
    except ValueError as error:
        got = f"{decoder.num_frames} frames"
        raise DecodeError("the video has fewer frames than clips", got=got, limit=f"at least {num_clips}") from error
    unique, places = np.unique(indices, return_inverse=True)
    return decoder.frames_by_index(unique), places.reshape(indices.shape), decoder.shown_size
