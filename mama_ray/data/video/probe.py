"""What a video is, from its container and its first frame."""

from dataclasses import dataclass
from pathlib import Path

from mama_ray.data.video.container import open_video
from mama_ray.data.video.orientation import UPRIGHT, shown_size
from mama_ray.data.video.packets import VideoIndex, index_packets
from mama_ray.data.video.settings import DecodeConfig


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video's best video stream (the one players show).

    `width` and `height` are as shown, in square pixels and after rotation; `duration_s` is the end of the last frame,
    from the container's time 0, and `first_frame_s` the beginning of the first, later than 0 where the sound starts
    first; `fps` is the average rate between the two; `rotation` is the display matrix's angle in degrees,
    counter-clockwise, of -90, 0, 90, 180, as ffprobe prints it (180 for a mirror too).
    """

    duration_s: float
    width: int
    height: int
    fps: float
    codec: str
    num_frames: int
    rotation: int
    first_frame_s: float = 0.0


def probe_video(data: bytes | str | Path, config: DecodeConfig | None = None) -> VideoInfo:
    """Describe a video given as bytes or as a path. Raises DecodeError with a readable reason when it cannot be
    used."""
    config = config or DecodeConfig()
    with open_video(data, config) as (container, stream):
        return describe(index_packets(container, stream, config, looks=True))


def describe(index: VideoIndex) -> VideoInfo:
    """Return the facts of a video whose first frame was looked at."""
    orientation = index.orientation or UPRIGHT
    width, height = shown_size(index.width, index.height, index.pixel_aspect, orientation)
    return VideoInfo(
        duration_s=index.duration_s,
        width=width,
        height=height,
        fps=index.shown_fps,
        codec=index.codec,
        num_frames=index.num_frames,
        rotation=orientation.rotation,
        first_frame_s=index.start_s,
    )
