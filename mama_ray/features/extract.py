"""From the bytes of a video to what VGT reads of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from mama_ray.data.region_features.boxes import link_regions
from mama_ray.data.video import guarded
from mama_ray.data.video.sampled import clip_frames
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.features.frames import FrameEncoder
from mama_ray.features.regions import RegionDetector

_LARGEST_DECODED_SIDE = 1080  # 32 frames of 1080p are 200 MB


class VideoFeatures(NamedTuple):
    """Features of one video; boxes in pixels of the video as it is shown, both ends included."""

    frames: Float[np.ndarray, "clips frames d"]
    regions: Float[np.ndarray, "clips frames r e"]
    boxes: Float[np.ndarray, "clips frames r 4"]
    width: int
    height: int


class ClipPixels(NamedTuple):
    """Frames of one video, each once, and where each frame of each clip is among them."""

    frames: UInt8[np.ndarray, "n h w 3"]
    places: Int[np.ndarray, "clips frames"]
    width: int
    height: int


def decode_pixels(
    data: bytes | str | Path,
    frame_encoder: FrameEncoder,
    detector: RegionDetector,
    *,
    num_clips: int,
    frames_per_clip: int,
    decode: DecodeConfig | None = None,
    is_guarded: bool = True,
) -> ClipPixels:
    """Decode a video's frames at the size that the models see.

    Decoding is done in a process of its own, unless `is_guarded` says that this one may be lost. Raises DecodeError
    for a video that cannot be used, one with fewer frames than clips among them.
    """
    side = min(_LARGEST_DECODED_SIDE, max(frame_encoder.decoded_side, detector.decoded_side))
    read = guarded.clip_frames if is_guarded else clip_frames
    frames, places, (width, height) = read(
        data, num_clips=num_clips, frames_per_clip=frames_per_clip, short_side=side, decode=decode
    )
    return ClipPixels(frames, places, width, height)


def extract_features(pixels: ClipPixels, frame_encoder: FrameEncoder, detector: RegionDetector) -> VideoFeatures:
    """Encode, detect, and link each clip's regions so that slot r is one object over its frames."""
    frames, found = frame_encoder(pixels.frames), detector(pixels.frames)
    width, height, places = pixels.width, pixels.height, pixels.places
    # The last pixel of a box that reaches to 1 is width - 1.
    boxes = found.boxes * np.array([width, height, width, height], np.float32) - np.array([0, 0, 1, 1], np.float32)
    regions, boxes = found.features[places], boxes[places]
    for clip in range(len(places)):
        order = link_regions(regions[clip], boxes[clip])
        regions[clip] = np.take_along_axis(regions[clip], order[:, :, None], axis=1)
        boxes[clip] = np.take_along_axis(boxes[clip], order[:, :, None], axis=1)
    return VideoFeatures(frames[places], regions, boxes, width, height)
