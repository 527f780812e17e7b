"""Opening a video: limits, the one error, and which of its streams is the video."""

import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from mama_ray.data.video.orientation import shown_size
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.video_file import VideoFile

# Playlists (hls, dash, concat) would make FFmpeg open what a file names, so only self-contained formats are let in.
ALLOWED_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,webp_pipe,mpeg,mpegts,mpegvideo,ogg,flv,asf,mjpeg,h264,hevc,ivf,"
    "rm,mxf,dv,m4v,obu,vc1,wtv,swf,nut,y4m,yuv4mpegpipe"
)
# The decoder compares its limit with rows that it has padded: this much is added to ours, which is kept exactly.
_PADDED_PIXELS = 128 << 14

ONLY_A_COVER = "the file has no video stream, a cover picture only"
_PICTURE_CODECS = ("mjpeg", "png", "bmp", "tiff", "webp")


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


@dataclass
class Deadline:
    """A point in time after which `check` raises DecodeError. It is of the CPU time of the thread that decodes: what a
    disk or other processes take is no fault of the video.
    """

    limit_s: float
    end: float
    clock: Callable[[], float]

    @classmethod
    def after(cls, limit_s: float, clock: Callable[[], float] = time.thread_time) -> "Deadline":
        return cls(limit_s, clock() + limit_s, clock)

    def renew(self) -> None:
        """Begin the time anew, where there is one for each of many steps."""
        self.end = self.clock() + self.limit_s

    def check(self) -> None:
        if self.clock() > self.end:
            raise DecodeError(
                "decoding takes too long", got=f"more than {self.limit_s:g} s", limit=f"{self.limit_s:g} s"
            )


@contextmanager
def open_video(data: bytes | str | Path, config: DecodeConfig) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Yield the open container and its best video stream.

    Every failure of FFmpeg inside becomes a DecodeError. Raises OSError where the disk under a path fails.
    """
    with decode_errors(), _opened(data) as source:
        num_bytes = source.seek(0, io.SEEK_END)
        source.seek(0)
        if num_bytes == 0:
            raise DecodeError("the file is empty")
        if num_bytes > config.max_bytes:
            raise DecodeError("the file is too large", got=f"{num_bytes} bytes", limit=f"{config.max_bytes} bytes")
        # Titles and the like are in any encoding; they are of no use here, so must not stop a video.
        decoder_options = {"max_pixels": str(config.max_pixels + _PADDED_PIXELS)}
        options = {"format_whitelist": ALLOWED_FORMATS, **decoder_options}
        with av.open(source, "r", options=options, metadata_errors="replace") as container:
            stream = _choose_stream(container)
            codec = stream.codec_context  # None where FFmpeg has no decoder
            if codec is None:
                raise DecodeError("there is no decoder for the video stream")
            if codec.width * codec.height == 0:
                raise DecodeError("the video stream has no frame size")
            check_size(codec.width, codec.height, config)
            check_size(*shown_size(codec.width, codec.height, pixel_aspect_of(stream), None), config)
            codec.options = decoder_options  # a stream may grow on its way
            codec.thread_count = 1  # parallelism is one video per process; more threads would only fight over cores
            yield container, stream


@contextmanager
def decode_errors() -> Iterator[None]:
    """Turn every failure of FFmpeg into a DecodeError."""
    try:
        yield
    except (av.FFmpegError, EOFError) as error:
        raise DecodeError(f"not a readable video ({getattr(error, 'strerror', None) or error})") from error


def check_size(width: int, height: int, config: DecodeConfig) -> None:
    """Raise DecodeError for a frame of more than `max_pixels`."""
    if width * height > config.max_pixels:
        raise DecodeError("the frames are too large", got=f"{width}x{height}", limit=f"{config.max_pixels} pixels")


def pixel_aspect_of(stream: VideoStream) -> Fraction:
    """Width over height of a stored pixel; what the container says goes before what the codec says, as in players."""
    return stream.sample_aspect_ratio or Fraction(1)


def is_cover(stream: VideoStream, container: InputContainer, num_frames: int) -> bool:
    """Whether the one picture of this stream only goes with the sound, though no flag says so."""
    return num_frames == 1 and _holds_pictures(stream) and len(container.streams.audio) > 0


def _choose_stream(container: InputContainer) -> VideoStream:
    """Return the stream that players show. A cover is none, whatever else its flags say."""
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        if container.streams.video:
            raise DecodeError(ONLY_A_COVER)
        raise DecodeError("the file has no video stream")
    # Some writers lose the flag of a cover on the way into a track.
    videos = [stream for stream in videos if not _holds_pictures(stream)] or videos
    best = container.streams.best("video")
    return next((stream for stream in videos if stream is best), None) or max(videos, key=_rank)


def _holds_pictures(stream: VideoStream) -> bool:
    return stream.codec_context is not None and stream.codec_context.name in _PICTURE_CODECS


def _rank(stream: VideoStream) -> tuple[bool, int]:
    codec = stream.codec_context
    return bool(stream.disposition & Disposition.default), codec.width * codec.height if codec is not None else -1


def _opened(data: bytes | str | Path) -> io.BytesIO | VideoFile:
    if isinstance(data, bytes | bytearray | memoryview):
        return io.BytesIO(data)
    try:
        is_file = stat.S_ISREG(os.stat(data).st_mode)  # opening a pipe would wait
        source = VideoFile(str(data)) if is_file else None
    except (FileNotFoundError, NotADirectoryError):
        source = None
    except PermissionError as error:
        raise DecodeError("the file may not be read", got=str(data)) from error
    if source is None:
        raise DecodeError("no such file", got=str(data))
    return source
