"""The index of presented frames, and the way from it to the packets of some of them.

PyAV reads the container (a fraction of a millisecond for a small clip) and answers everything that is not a pixel. The
index comes from the packets, not from header fields: those are absent in webm and streamed mp4, and wrong in truncated
files. Time 0 is the container's, as players have it: where the sound starts first, the first frame comes later. Frames
that an edit list hides are not in the index.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mama_ray.data.video.clock import FrameTimes, PacketTimes, time_frames
from mama_ray.data.video.container import (
    ONLY_A_COVER,
    Deadline,
    DecodeError,
    check_size,
    is_cover,
    pixel_aspect_of,
)
from mama_ray.data.video.orientation import Orientation, orientation_of
from mama_ray.data.video.settings import DecodeConfig


@dataclass(frozen=True)
class VideoIndex:
    """What the packets say. Arrays have one entry per presented frame, in order of presentation."""

    timestamps_s: np.ndarray
    """float64, from the container's time 0, does not decrease."""
    pts: np.ndarray | None
    """int64 in units of the stream's time base, no two alike; None where the container has none (AVI)."""
    dts: np.ndarray
    """int64, likewise; that of the frame's packet as it stands in the file, its pts where it has none."""
    mended_pts: np.ndarray | None
    """int64, one per packet in the order of the file: what its pts is to be, where the clock of the file is broken."""
    packet_numbers: np.ndarray
    """int64: which packet of the file, in its order, holds the frame."""
    first: tuple[int | None, int | None]
    """pts and dts of the file's first packet, which may be hidden."""
    is_key: np.ndarray
    duration_s: float
    """From time 0 to the end of the last frame."""
    num_packets: int
    """All video packets, those that an edit list hides included."""
    width: int
    height: int
    """Coded size, before rotation, in pixels that need not be square."""
    pixel_aspect: Fraction
    orientation: Orientation | None
    """Of the first frame; None if it was not asked for."""
    num_video_streams: int
    fps: float
    codec: str
    container: str

    @property
    def num_frames(self) -> int:
        return len(self.timestamps_s)

    @property
    def start_s(self) -> float:
        """When the first frame is shown."""
        return float(self.timestamps_s[0])

    @property
    def shown_fps(self) -> float:
        """Frames per second while there are any; a container's own average counts hidden and dropped ones."""
        return self.num_frames / (self.duration_s - self.start_s)

    def key_before(self, number: int, last: int | None = None) -> int:
        """The number of the last key frame from which the frames `number` ... `last` (itself alone) can be decoded; 0
        where there is none."""
        # A frame before the first presented key frame hangs on one that an edit list hides.
        keys = np.flatnonzero(self.is_key[: number + 1])
        # Where recordings that were glued together overlap, a frame of the first is shown after a key of the second.
        earliest = self.packet_numbers[number : (number if last is None else last) + 1].min()
        keys = keys[self.packet_numbers[keys] <= earliest]
        return int(keys[-1]) if len(keys) else 0


def index_packets(
    container: InputContainer, stream: VideoStream, config: DecodeConfig, *, looks: bool = False
) -> VideoIndex:
    """Read every packet's times; with `looks` decode the first frame too, and nothing more.

    The container must be freshly open. Raises DecodeError for no frames, too long, or too slow.
    """
    packets, first_frame = _walk(container, stream, config, looks=looks)
    times = time_frames(packets, container, stream)
    if times.duration_s > config.max_duration_s:
        raise DecodeError(
            "the video is too long", got=f"{times.duration_s:.1f} s", limit=f"{config.max_duration_s:g} s"
        )
    return _index(packets, times, container, stream, first_frame)


def _walk(
    container: InputContainer, stream: VideoStream, config: DecodeConfig, *, looks: bool
) -> tuple[PacketTimes, VideoFrame | None]:
    deadline = Deadline.after(config.timeout_s)
    rows, first_frame, reason = [], None, None
    try:
        for packet in container.demux(stream):
            deadline.check()
            if looks and first_frame is None:
                try:
                    first_frame = next(iter(packet.decode()), None)
                except av.FFmpegError as error:
                    reason = error.strerror
                    _check_growth(stream, config)
            if packet.size:
                rows.append((packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, packet.is_discard))
                if len(rows) > config.max_frames:
                    raise DecodeError("the video has too many frames", limit=config.max_frames)
    except av.FFmpegError:
        pass  # the end of a truncated file: what came before it counts
    if all(row[4] for row in rows):
        raise DecodeError("the video has no frames")
    if is_cover(stream, container, len(rows)):
        raise DecodeError(ONLY_A_COVER)
    _check_whole(rows, container, stream, config)
    if looks and first_frame is None:
        raise DecodeError("no frame of the video can be decoded" + (f" ({reason})" if reason else ""))
    return PacketTimes.of(rows), first_frame


def _check_whole(rows: list[tuple], container: InputContainer, stream: VideoStream, config: DecodeConfig) -> None:
    """Raise DecodeError for a file that has far fewer frames than its header says."""
    if container.format.name == "ivf":
        return  # FFmpeg writes the length in ticks where the number of frames belongs
    num_there, num_told = len(rows), len(listed_frames(stream)) or stream.frames
    if container.format.name == "avi":
        # A picture that stays is an empty chunk there: no packet, but counted, by the clock too.
        num_there = max([num_there, *(dts + 1 for _, dts, *_ in rows if dts is not None)])
    if num_there < num_told * (1 - config.max_replaced):
        raise DecodeError("the file is cut off", got=f"{num_there} of {num_told} frames")


def listed_frames(stream: VideoStream) -> Sequence[Any]:
    """Return the frames that the header of an mp4 lists, but for what an edit list leaves out; nothing for others,
    which list key frames alone, or come piece by piece."""
    is_listed = stream.container.format.name.startswith("mov,mp4") and stream.frames > 0
    return getattr(stream, "index_entries", ()) if is_listed else ()  # which the first versions of PyAV 14 lack


def _index(
    packets: PacketTimes,
    times: FrameTimes,
    container: InputContainer,
    stream: VideoStream,
    first_frame: VideoFrame | None,
) -> VideoIndex:
    dts = np.where(packets.has_dts, packets.dts, packets.pts)
    return VideoIndex(
        timestamps_s=times.timestamps_s,
        pts=times.pts,
        dts=dts[times.packet_numbers],
        mended_pts=times.mended_pts,
        packet_numbers=times.packet_numbers,
        first=(
            int(packets.pts[0]) if packets.has_pts[0] else None,
            int(packets.dts[0]) if packets.has_dts[0] else None,
        ),
        is_key=packets.is_key[times.packet_numbers],
        duration_s=times.duration_s,
        num_packets=len(packets.pts),
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        pixel_aspect=pixel_aspect_of(stream),
        orientation=orientation_of(first_frame) if first_frame is not None else None,
        num_video_streams=len(container.streams.video),
        fps=float(stream.average_rate or stream.guessed_rate or 0)
        or len(times.timestamps_s) / (times.duration_s - float(times.timestamps_s[0])),
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
    )


def seek_packets(
    container: InputContainer, stream: VideoStream, index: VideoIndex, key: int
) -> Iterator[Packet] | None:
    """Go to key frame number `key` and return the packets from there, or from a little before; None where the
    container cannot go there."""
    assert index.pts is not None
    earlier = index.key_before(max(0, key - 1))
    # By the time of presentation, as some containers count; by that of decoding, as others do; one key frame earlier.
    for target in dict.fromkeys((int(index.pts[key]), int(index.dts[key]), int(index.dts[earlier]))):
        try:
            container.seek(target, stream=stream, backward=True)
            packets = container.demux(stream)
            first = next(packets)
        except (av.FFmpegError, StopIteration):
            continue
        if first.size and _is_not_later(first, int(index.pts[key]), int(index.dts[key])):
            return chain([first], packets)
    return None


def _is_not_later(packet: Packet, key_pts: int, key_dts: int) -> bool:
    if packet.is_keyframe and packet.pts is not None and packet.pts <= key_pts:
        return True
    return packet.dts is not None and packet.dts <= key_dts


def first_packets(container: InputContainer, stream: VideoStream, index: VideoIndex, key: int = 0) -> Iterator[Packet]:
    """Yield the packets of a freshly open container; where its clock is broken, from frame number `key` on, mended."""
    packets = container.demux(stream)
    if index.mended_pts is None:
        return packets
    return _mended(packets, index.mended_pts, int(index.packet_numbers[key]) if key else 0)


def packets_again(container: InputContainer, stream: VideoStream, index: VideoIndex) -> Iterator[Packet] | None:
    """Go back to the beginning of a container that was read to its end and return its packets; None where it cannot, or
    where another packet comes first than did before. Its clock is not broken.
    """
    known = [time for time in index.first if time is not None]
    if not known:
        return None
    try:
        container.seek(min(known) - 1, stream=stream, backward=True)
        packets = container.demux(stream)
        first = next(packets)
    except (av.FFmpegError, StopIteration):
        return None
    return chain([first], packets) if first.size and (first.pts, first.dts) == index.first else None


def _mended(packets: Iterator[Packet], mended_pts: np.ndarray, first: int) -> Iterator[Packet]:
    number = 0
    for packet in packets:
        if not packet.size:
            yield packet  # the decoder's sign to give out what it holds back
            continue
        if first <= number < len(mended_pts):
            packet.pts, packet.dts = int(mended_pts[number]), None  # without dts the decoder believes the pts
            yield packet
        number += 1


def decode_frames(
    packets: Iterator[Packet],
    stream: VideoStream,
    config: DecodeConfig,
    deadline: Deadline,
    on_damage: Callable[[], object] = lambda: None,
) -> Iterator[VideoFrame]:
    """Yield the frames that decode; a packet that does not is told and stepped over, the end of a cut-off file ends the
    video.

    Raises DecodeError where the frames grow over the limit on the way.
    """
    while True:
        deadline.check()
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            _check_growth(stream, config)
            on_damage()
            continue
        for frame in frames:
            check_size(frame.width, frame.height, config)
            yield frame


def _check_growth(stream: VideoStream, config: DecodeConfig) -> None:
    """A decoder that was stopped by its limit has the size that it wanted, or none."""
    codec = stream.codec_context
    if codec.width * codec.height == 0:
        raise DecodeError("the frames become too large, or their size is damaged", limit=f"{config.max_pixels} pixels")
    check_size(codec.width, codec.height, config)
