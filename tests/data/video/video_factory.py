"""Small real videos for tests, encoded on the spot with PyAV.

Every frame tells its number: the left half's grey level is `frame_level(number)`, and a white square marks the upper
left corner, so that a test sees which frame it got and which way is up.
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

from mama_ray.data.video.container import Deadline, open_video
from mama_ray.data.video.orientation import UPRIGHT, Orientation
from mama_ray.data.video.packets import decode_frames
from mama_ray.data.video.settings import DecodeConfig

TIME_BASE = Fraction(1, 12_800)
CONTAINERS = {
    "libx264": "mp4",
    "mpeg4": "mp4",
    "libvpx-vp9": "webm",
    "libvpx": "webm",
    "gif": "gif",
    "libsvtav1": "mp4",
}


def frame_level(number: int) -> int:
    """The grey level of frame `number`: 16 levels, 14 apart, so that lossy coding cannot confuse neighbours."""
    return 20 + 14 * (number % 16)


def frame_number(frame: np.ndarray) -> int:
    """The number (modulo 16) of the frame that `frame` (height, width, 3) shows, upright."""
    height, width = frame.shape[:2]
    level = np.median(frame[height // 2 :, : width // 2])
    return round(float(level - 20) / 14) % 16


def is_upright(frame: np.ndarray) -> bool:
    """Whether the white square is in the upper left corner."""
    height, width = frame.shape[:2]
    corner = frame[: height // 8, : width // 8].mean()
    others = (
        frame[: height // 8, -(width // 8) :],
        frame[-(height // 8) :, : width // 8],
    )
    return corner > 245 and all(other.mean() < 240 for other in others)


def draw_frame(number: int, width: int, height: int) -> np.ndarray:
    """Frame `number`, uint8 (height, width, 3)."""
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    frame[:, : width // 2] = frame_level(number)
    frame[:, width // 2 :] = (30, 90, 160)
    frame[: max(1, height // 4), : max(1, width // 4)] = 255
    return frame


def make_video(
    *,
    first: int = 0,
    num_frames: int = 8,
    width: int = 64,
    height: int = 48,
    fps: float = 8,
    codec: str = "libx264",
    container: str | None = None,
    rotation: int = 0,
    orientation: Orientation = UPRIGHT,
    pixel_aspect: Fraction | None = None,
    timestamps_s: Sequence[float] | None = None,
    with_audio: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> bytes:
    """Encode a video of frames numbered from `first` on.

    `rotation` is the display matrix's angle, counter-clockwise, a multiple of 90: the stored frames are turned the
    other way, so an upright decoder shows a width x height picture; `orientation` likewise, mirrors included. With
    `pixel_aspect`, width over height of a shown pixel, fewer are stored. `timestamps_s` (one per frame) makes the frame
    rate variable.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container or CONTAINERS[codec], options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})

        def stored_frame(number: int) -> np.ndarray:
            pixels = np.rot90(draw_frame(number, *_stored_size(width, height, pixel_aspect)), -rotation // 90)
            return _laid_down(pixels, orientation)

        stored = stored_frame(0)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "gray" if codec == "gif" else "yuv420p"
        stream.codec_context.time_base = _time_base(codec, container, fps)
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        if orientation != UPRIGHT:
            stream.set_display_matrix(_matrix_of(orientation))
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = 1 / pixel_aspect if orientation.transposes else pixel_aspect
        audio = output.add_stream("aac", rate=16_000, layout="mono") if with_audio else None
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(stored_frame(first + number), format="rgb24").reformat(
                format=stream.pix_fmt
            )
            time_s = timestamps_s[number] if timestamps_s is not None else number / fps
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time_s / frame.time_base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if audio is not None:
            _add_silence(output, audio, num_frames / fps)
    return buffer.getvalue()


def _stored_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """The other way round from `shown_size`."""
    if pixel_aspect is None:
        return width, height
    return (round(width / pixel_aspect), height) if pixel_aspect > 1 else (width, round(height * pixel_aspect))


def _laid_down(shown: np.ndarray, orientation: Orientation) -> np.ndarray:
    """The other way round from `Orientation.apply`."""
    flipped = shown[:: -1 if orientation.flips_y else 1, :: -1 if orientation.flips_x else 1]
    return np.ascontiguousarray(flipped.transpose(1, 0, 2) if orientation.transposes else flipped)


def _matrix_of(orientation: Orientation) -> list[int]:
    x, y = -1 if orientation.flips_x else 1, -1 if orientation.flips_y else 1
    a, b, c, d = (0, y, x, 0) if orientation.transposes else (x, 0, 0, y)
    return [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]


def make_song_with_cover(container: str = "mp4", *, is_flagged: bool = True, video: bytes | None = None) -> bytes:
    """Sound and a large cover with the default flag; `is_flagged` says that it is one. With `video`, its frames too."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 160, "yuvj420p"
        cover.disposition = Disposition.default | (Disposition.attached_pic if is_flagged else 0)
        audio = output.add_stream("aac", rate=16_000, layout="mono")
        frame = av.VideoFrame.from_ndarray(draw_frame(0, 160, 160), format="rgb24").reformat(format="yuvj420p")
        frame.pts = 0
        with av.open(io.BytesIO(video or make_video(num_frames=1))) as source:
            copied = output.add_stream_from_template(source.streams.video[0]) if video else None
            output.mux(cover.encode(frame))
            output.mux(cover.encode())
            for packet in source.demux(source.streams.video[0]) if copied else ():
                packet.stream = copied
                output.mux([packet] if packet.size else [])
        _add_silence(output, audio, 2.0)
    return buffer.getvalue()


def make_damaged_video(*, num_frames: int, first_bad: int, num_bad: int) -> bytes:
    """A video of key frames only, of which `num_bad` are overwritten with zeros."""
    video = bytearray(make_video(num_frames=num_frames, codec="mpeg4", options={"g": "1", "qscale": "2"}))
    with av.open(io.BytesIO(bytes(video))) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in places[first_bad : first_bad + num_bad]:
        video[position : position + size] = bytes(size)
    return bytes(video)


def make_audio_only(duration_s: float = 1.0) -> bytes:
    """An mp4 that holds a silent sound track and no video."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        _add_silence(output, output.add_stream("aac", rate=16_000, layout="mono"), duration_s)
    return buffer.getvalue()


def make_empty_video(width: int = 64, height: int = 48) -> bytes:
    """An mp4 whose video stream has a header and not one frame."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        output.start_encoding()
    return buffer.getvalue()


def _time_base(codec: str, container: str | None, fps: float) -> Fraction:
    if codec == "gif":
        return Fraction(1, 100)  # the unit of the format
    return 1 / Fraction(fps).limit_denominator(1001) if container == "avi" or codec == "mpeg2video" else TIME_BASE


def _add_silence(output, stream, duration_s: float) -> None:
    for start in range(0, int(duration_s * 16_000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = (
            16_000,
            start,
            Fraction(1, 16_000),
        )
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def count_decodable_frames(data: bytes) -> int:
    """Decode the whole video and return how many frames come out sound."""
    config = DecodeConfig()
    with open_video(data, config) as (container, stream):
        frames = decode_frames(container.demux(stream), stream, config, Deadline.after(config.timeout_s))
        return sum(not frame.is_corrupt for frame in frames)
