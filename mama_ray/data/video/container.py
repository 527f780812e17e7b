"""Opening a video: limits, the one error, and the index of presented frames.

PyAV reads the container (a fraction of a millisecond for a small clip) and answers everything that is not a pixel. The
index comes from the packets, not from header fields: those are absent in webm and streamed mp4, and wrong in truncated
files. Time 0 is the first presented frame; frames that an edit list hides are not in the index.
"""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from mama_ray.data.video.settings import DecodeConfig

# Playlists (hls, dash, concat) would make FFmpeg open what a file names, so only self-contained formats are let in.
ALLOWED_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,webp_pipe,mpeg,mpegts,mpegvideo,ogg,flv,asf,mjpeg,h264,hevc,ivf,"
    "rm,mxf,dv,m4v,obu,vc1,wtv,swf,nut,y4m,yuv4mpegpipe"
)
# Containers without times of presentation: FFmpeg makes some up from the order of decoding, wrong wherever B-frames
# are.
WITHOUT_PTS = ("avi", "h264", "hevc", "m4v", "mpegvideo", "vc1", "obu")
DEFAULT_FRAME_S = 0.04  # 25 frames/s, FFmpeg's own guess, for a single frame without any timing


class DecodeError(ValueError):
    """A video that cannot be used: broken, empty, not a video, or over a limit. The text is one readable reason."""

    def __init__(self, what: str, *, got: object = None, limit: object = None) -> None:
        parts = [f"got {got}"] if got is not None else []
        parts += [f"limit {limit}"] if limit is not None else []
        super().__init__(f"{what}: {', '.join(parts)}" if parts else what)
        self.what, self.got, self.limit = what, got, limit

    def __reduce__(self) -> tuple:
        # Keyword arguments are lost by the default protocol, and Ray sends errors between processes.
        return _rebuild_error, (self.what, self.got, self.limit)


def _rebuild_error(what: str, got: object, limit: object) -> DecodeError:
    return DecodeError(what, got=got, limit=limit)


@dataclass(frozen=True)
class Deadline:
    """A point in time after which `check` raises DecodeError."""

    limit_s: float
    end: float

    @classmethod
    def after(cls, limit_s: float) -> "Deadline":
        return cls(limit_s, time.monotonic() + limit_s)

    def check(self) -> None:
        if time.monotonic() > self.end:
            raise DecodeError(
                "decoding takes too long", got=f"more than {self.limit_s:g} s", limit=f"{self.limit_s:g} s"
            )


@dataclass(frozen=True)
class VideoIndex:
    """What the packets say. Arrays have one entry per presented frame, in order of presentation."""

    timestamps_s: np.ndarray
    """float64, starts at 0, does not decrease."""
    pts: np.ndarray | None
    """int64 in units of the stream's time base; None where the container has none (AVI)."""
    is_key: np.ndarray
    duration_s: float
    num_packets: int
    """All video packets, those that an edit list hides included."""
    width: int
    height: int
    """Coded size, before rotation."""
    fps: float
    codec: str
    container: str

    @property
    def num_frames(self) -> int:
        return len(self.timestamps_s)


@contextmanager
def open_video(data: bytes | str | Path, config: DecodeConfig) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Yield the open container and its best video stream; every failure inside becomes a DecodeError."""
    source, num_bytes = _source(data)
    if num_bytes == 0:
        raise DecodeError("the file is empty")
    if num_bytes > config.max_bytes:
        raise DecodeError("the file is too large", got=f"{num_bytes} bytes", limit=f"{config.max_bytes} bytes")
    try:
        # Titles and the like are in any encoding; they are of no use here, so must not stop a video.
        options = {"format_whitelist": ALLOWED_FORMATS}
        with av.open(source, "r", options=options, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise DecodeError("the file has no video stream")
            codec = stream.codec_context  # None where FFmpeg has no decoder
            if codec is None:
                raise DecodeError("there is no decoder for the video stream")
            if codec.width * codec.height == 0:
                raise DecodeError("the video stream has no frame size")
            if codec.width * codec.height > config.max_pixels:
                size = f"{codec.width}x{codec.height}"
                raise DecodeError("the frames are too large", got=size, limit=f"{config.max_pixels} pixels")
            codec.thread_count = 1  # parallelism is one video per process; more threads would only fight over cores
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        raise DecodeError(f"not a readable video ({getattr(error, 'strerror', None) or error})") from error


def _source(data: bytes | str | Path) -> tuple[io.BytesIO | str, int]:
    if isinstance(data, bytes | bytearray | memoryview):
        return io.BytesIO(data), len(data)
    path = Path(data)
    if not path.is_file():
        raise DecodeError("no such file", got=str(path))
    return str(path), path.stat().st_size


def index_packets(container: InputContainer, stream: VideoStream, config: DecodeConfig) -> VideoIndex:
    """Read every packet's times without decoding. Raises DecodeError for no frames, too long, or too slow."""
    deadline = Deadline.after(config.timeout_s)
    rows, num_packets = [], 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            deadline.check()
            num_packets += 1
            if not packet.is_discard:
                rows.append((packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe))
    except av.FFmpegError:
        pass  # the end of a truncated file: what came before it counts
    if not rows:
        raise DecodeError("the video has no frames")
    if num_packets < stream.frames * (1 - config.max_replaced):
        raise DecodeError("the file is cut off", got=f"{num_packets} of {stream.frames} frames")
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    timestamps_s, pts, order, last_s = _order(
        rows, float(stream.time_base or 0), fps, container.format.name not in WITHOUT_PTS
    )
    duration_s = float(timestamps_s[-1]) + last_s
    if duration_s > config.max_duration_s:
        raise DecodeError("the video is too long", got=f"{duration_s:.1f} s", limit=f"{config.max_duration_s:g} s")
    return VideoIndex(
        timestamps_s=timestamps_s,
        pts=pts,
        is_key=np.array([row[3] for row in rows], dtype=bool)[order],
        duration_s=duration_s,
        num_packets=num_packets,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        fps=fps or len(rows) / duration_s,
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
    )


def _order(
    rows: list[tuple], time_base: float, fps: float, has_pts: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, float]:
    """Timestamps from 0, pts, the order of presentation, and how long the last frame stays, in seconds."""
    if not has_pts or any(row[0] is None for row in rows):
        # The k-th frame shown takes the k-th place in the order of decoding.
        frame_s = 1 / fps if fps else DEFAULT_FRAME_S
        dts = [row[1] for row in rows]
        known = time_base > 0 and None not in dts
        times = (np.sort(dts) - min(dts)) * time_base if known else np.arange(len(rows)) * frame_s
        return times, None, np.arange(len(rows)), frame_s
    pts = np.array([row[0] for row in rows], dtype=np.int64)
    order = np.argsort(pts, kind="stable")
    timestamps_s = (pts[order] - pts[order[0]]) * time_base
    last_s = rows[order[-1]][2] * time_base
    if last_s <= 0:
        steps = np.diff(timestamps_s)
        last_s = float(np.median(steps)) if len(steps) else 0.0
    if last_s <= 0:
        last_s = 1 / fps if fps else DEFAULT_FRAME_S
    return timestamps_s, pts[order], order, last_s
