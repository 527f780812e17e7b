"""Clips as filmstrips inside a page, a few frames side by side in one JPEG, and single pictures; both as data URIs."""

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

GAP_PX = 2
# Small clips are shown enlarged to this height, large ones reduced: a page with fifty strips stays under a few MiB.
STRIP_HEIGHT_PX = 72
# A page with fifty pictures stays under a MiB.
PICTURE_PX = 220
_JPEG_QUALITY = 84


def strip_data_uri(
    frames: UInt8[np.ndarray, "frames height width channels"], *, max_frames: int = 4, height_px: int = STRIP_HEIGHT_PX
) -> str:
    """Return the frames side by side as a JPEG data URI, `max_frames` of them spread over the clip."""
    chosen = frames[spread(len(frames), max_frames)]
    height, width = chosen.shape[1:3]
    size = (max(1, round(width * height_px / height)), height_px)
    strip = Image.new("RGB", (len(chosen) * (size[0] + GAP_PX) - GAP_PX, height_px), "black")
    for place, frame in enumerate(chosen):
        strip.paste(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), (place * (size[0] + GAP_PX), 0))
    return _data_uri(strip)


def picture_data_uri(pixels: UInt8[np.ndarray, "height width channels"], *, max_px: int = PICTURE_PX) -> str:
    """Return a picture as a JPEG data URI, reduced so that no side exceeds `max_px`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    return _data_uri(picture)


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def spread(count: int, wanted: int) -> np.ndarray:
    """Return the indices of at most `wanted` of `count` frames, the centres of equal segments, in order."""
    if count <= wanted:
        return np.arange(count)
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(int)
