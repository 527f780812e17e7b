"""Several views of a clip: windows of consecutive frames, spread evenly over it, and crops side by side.

LaViLa's evaluation on EGTEA: 10 windows of 32 frames, every second of which is seen, by 3 crops. The release takes the
centre before its three crops, which are then one and the same; here they differ. Without torch, for a child process.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np
from jaxtyping import Int64
from pydantic import Field, model_validator

from mama_ray.config import Config
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.sampled import refuse_long_frames
from mama_ray.data.video.settings import DecodeConfig

BLACK = -1  # the number of a frame that a short clip has not


class ViewConfig(Config):
    """What is seen of a clip, and how the scores of its views become one."""

    num_windows: int = Field(default=1, ge=1)
    """Windows spread evenly over the clip; 1 is no window: one frame of each equal segment of the whole clip."""
    window_frames: int = Field(default=32, ge=1)
    """Frames of the video that a window spans; of each equal part the first is seen."""
    num_crops: Literal[1, 3] = 1
    """1: frames become squares as the model has it; 3: the short side is scaled, then the left (or upper), centre and
    right (or lower) square."""
    pool: Literal["mean", "max"] = "mean"
    """How the cosines of the views become the clip's; of the logits of a head the mean is taken."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        told = self.changed_beside("num_windows")
        if self.num_windows == 1 and "window_frames" in told:
            raise ValueError(f"window_frames {self.window_frames} has no meaning without num_windows: give it, too")
        if self.num_views == 1 and "pool" in told:
            raise ValueError(f"pool {self.pool} has no meaning for one view: give num_windows or num_crops, too")
        return self

    @property
    def num_views(self) -> int:
        """Views of a clip."""
        return self.num_windows * self.num_crops

    def __str__(self) -> str:
        """Return the views as a result names them."""
        windows = f"{self.num_windows} windows of {self.window_frames} frames" if self.num_windows > 1 else "1 window"
        return f"{windows} x {self.num_crops}, {self.pool}" if self.num_views > 1 else "1"


def window_indices(
    num_video_frames: int, num_frames: int, *, num_windows: int, window_frames: int
) -> Int64[np.ndarray, "windows frames"]:
    """Return the frame numbers of each window, ascending; BLACK where a shorter clip has none.

    Windows begin at equal distances, the first with the first frame and the last so that it ends with the last. A clip
    that is shorter than a window is filled up with black behind its end, and all windows are the same. ValueError
    where a window has not `num_frames` frames.
    """
    if num_video_frames < 1 or not 1 <= num_frames <= window_frames:
        raise ValueError(f"got {num_frames} of {window_frames} frames, wanted at most as many as the window has")
    starts = np.linspace(0, max(0, num_video_frames - window_frames), num_windows).astype(np.int64)
    places = np.arange(num_frames) * window_frames // num_frames
    indices = starts[:, None] + places
    return np.where(indices < num_video_frames, indices, BLACK)


def window_frames(
    data: bytes | str | Path,
    *,
    num_windows: int,
    frames_per_window: int,
    window: int,
    size: Mapping[str, int],
    decode: DecodeConfig | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the frames that `window_indices` names, each once, in `size`, in words of `VideoDecoder`.

    Returns uint8 (frames, height, width, 3), RGB, in order of presentation, and where each frame of each window is
    among them, int64 (windows, frames), BLACK where it is none. Raises DecodeError.
    """
    width, height, short_side = (size.get(name) for name in ("width", "height", "short_side"))
    decoder = VideoDecoder(data, width=width, height=height, short_side=short_side, config=decode)
    refuse_long_frames(decoder.width, decoder.height)
    indices = window_indices(decoder.num_frames, frames_per_window, num_windows=num_windows, window_frames=window)
    unique = np.unique(indices[indices != BLACK])
    places = np.where(indices == BLACK, BLACK, np.searchsorted(unique, indices))
    return decoder.frames_by_index(unique), places
