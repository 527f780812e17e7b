"""From the bytes of a clip to the frames of its views."""

from pathlib import Path

import numpy as np

from mama_ray.data.video import guarded
from mama_ray.data.video.loading import decoded_size, load_clip_frames
from mama_ray.data.video.settings import DecodeConfig, Interpolation
from mama_ray.data.video.transforms import TransformConfig, resize_frames, transform_frames
from mama_ray.data.video.views import BLACK, ViewConfig


def load_views(
    data: bytes | str | Path,
    *,
    views: ViewConfig,
    num_frames: int,
    transform: TransformConfig,
    decode: DecodeConfig | None = None,
) -> np.ndarray:
    """Return uint8 (views, num_frames, image_size, image_size, 3), RGB; the crops of a window stand side by side.

    Raises DecodeError as `load_clip_frames` does.
    """
    if views.num_views == 1:
        return load_clip_frames(data, num_frames=num_frames, transform=transform, decode=decode)[None]
    size = transform.image_size
    # Crops side by side are taken of frames that keep their aspect, whatever the model does with a single view.
    seen = transform if views.num_crops == 1 else transform.model_copy(update={"resize": "center_crop"})
    decoded = decoded_size(seen, at_random=False)
    if views.num_windows == 1:
        frames = guarded.sampled_frames(data, num_frames=num_frames, size=decoded, decode=decode)
        places = np.arange(num_frames)[None]
    else:
        frames, places = guarded.window_frames(
            data, num_windows=views.num_windows, frames_per_window=num_frames, window=views.window_frames,
            size=decoded, decode=decode,
        )  # fmt: skip
    if views.num_crops == 1:
        crops = transform_frames(frames, transform, rng=None)[None]
    else:
        crops = three_crops(frames, size, transform.interpolation)
    crops = np.concatenate([crops, np.zeros_like(crops[:, :1])], axis=1)  # black is the last, as BLACK says
    assert BLACK == -1
    # (crops, windows, frames, ...) to windows by crops
    return np.swapaxes(crops[:, places], 0, 1).reshape(views.num_views, num_frames, size, size, 3)


def three_crops(frames: np.ndarray, size: int, mode: Interpolation = "bicubic") -> np.ndarray:
    """Return uint8 (3, frames, size, size, 3): the first, the middle and the last square along the longer side.

    The shorter side is scaled to `size` first. Of square frames the three are the same.
    """
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    scaled = resize_frames(frames, max(size, round(height * scale)), max(size, round(width * scale)), mode)
    spare_rows, spare_columns = scaled.shape[1] - size, scaled.shape[2] - size
    corners = [(spare_rows * part // 2, spare_columns * part // 2) for part in range(3)]
    return np.stack([scaled[:, top : top + size, left : left + size] for top, left in corners])
