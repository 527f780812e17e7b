"""What a video is, without decoding more than its first frame."""

from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from mama_ray.data.video.container import DecodeError, index_packets, open_video
from mama_ray.data.video.settings import DecodeConfig


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video's best video stream (the one players show).

    `width` and `height` are as shown, after rotation; `duration_s` runs from the first presented frame to the end of
    the last; `fps` is the average rate; `rotation` is the display matrix's angle in degrees, counter-clockwise, of
    -90, 0, 90, 180, as ffprobe prints it.
    """

    duration_s: float
    width: int
    height: int
    fps: float
    codec: str
    num_frames: int
    rotation: int


def probe_video(data: bytes | str | Path, config: DecodeConfig | None = None) -> VideoInfo:
    """Describe a video given as bytes or as a path. Raises DecodeError with a readable reason when it cannot be
    used."""
    config = config or DecodeConfig()
    with open_video(data, config) as (container, stream):
        rotation = first_frame_rotation(container, stream)
        container.seek(0)
        index = index_packets(container, stream, config)
    width, height = (index.height, index.width) if rotation in (-90, 90) else (index.width, index.height)
    # The average rate of a container counts hidden and dropped frames; this one is what the frames of the index show.
    fps = index.num_frames / index.duration_s
    return VideoInfo(index.duration_s, width, height, fps, index.codec, index.num_frames, rotation)


def first_frame_rotation(container: InputContainer, stream: VideoStream) -> int:
    """Decode up to the first good frame and return its rotation, rounded to a quarter turn; DecodeError if none is
    good."""
    reason = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            reason = error.strerror
            continue
        if frames:
            quarter_turns = round(frames[0].rotation / 90) % 4
            return (0, 90, 180, -90)[quarter_turns]
    raise DecodeError("no frame of the video can be decoded" + (f" ({reason})" if reason else ""))
