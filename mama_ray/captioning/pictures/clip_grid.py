"""From the bytes of a clip to the one picture that a captioner sees, with the record of what is in it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from mama_ray.captioning.pictures.settings import GRID, ClipGridConfig
from mama_ray.captioning.pictures.show import ShowConfig, show_clip
from mama_ray.data.video.settings import DecodeConfig


@dataclass(frozen=True)
class ClipGrid:
    """The picture of one clip.

    Attributes:
        pixels: uint8 (side, side, 3), RGB.
        frame_indices: int64 (Q,), ascending numbers of the clip's frames, one per cell.
        num_filled: cells that the method of choosing left to evenly spread or repeated frames.
        sha256: of the pixels, as `hash_pixels` gives it.
    """

    pixels: UInt8[np.ndarray, "side side 3"]
    frame_indices: Int64[np.ndarray, " key_frames"]
    num_filled: int
    sha256: str


def make_clip_grid(
    data: bytes | str | Path,
    config: ClipGridConfig,
    *,
    side: int,
    decode: DecodeConfig | None = None,
    is_guarded: bool = True,
) -> ClipGrid:
    """Decode a clip, choose its key frames and lay them out in a square of `side` pixels.

    Decoding is done in a process of its own, unless `is_guarded` says that this one may be lost. Raises DecodeError
    with a readable reason for a video that cannot be used.
    """
    how = ShowConfig(GRID, side, grid=config, decode=decode or DecodeConfig())
    shown = show_clip(data, how, is_guarded=is_guarded)
    return ClipGrid(shown.content, shown.frame_indices, shown.num_filled, shown.sha256)
