"""Which frames of a video VGT looks at: 8 clips of 4 frames, every fourth in both."""

import numpy as np
from jaxtyping import Int

_EVERY = 4


def clip_frame_indices(
    num_video_frames: int, *, num_clips: int = 8, frames_per_clip: int = 4
) -> Int[np.ndarray, "clips frames"]:
    """Return frame numbers, ascending in each clip.

    Of 4 * num_clips centres spread evenly over the video every fourth is taken; around it lies a window of 4 *
    frames_per_clip frames, of which every fourth is taken. Beyond the video's ends stands its first or last frame.
    ValueError for a video with fewer frames than clips: it would be the same few frames again and again.
    """
    if num_video_frames < num_clips:
        raise ValueError(f"the video has fewer frames than clips: got {num_video_frames}, wanted at least {num_clips}")
    centres = np.linspace(0, num_video_frames, _EVERY * num_clips + 2).astype(np.int64)[1:-1][::_EVERY]
    window = _EVERY * np.arange(frames_per_clip) - _EVERY * frames_per_clip // 2
    return np.clip(centres[:, None] + window, 0, num_video_frames - 1)
