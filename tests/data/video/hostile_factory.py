"""Small files that cost much: what a stranger may send."""

import io
import struct
from fractions import Fraction

import av

from tests.data.video.video_factory import make_video


def make_costly_gif(num_frames: int, width: int = 8192, height: int = 4320) -> bytes:
    """A large canvas of which each frame paints one pixel, in 23 bytes; the decoder gives out the whole of it."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF0, 0, 0) + bytes(3) + b"\xff" * 3
    control = b"\x21\xf9\x04\x08" + struct.pack("<H", 10) + bytes(2)
    pixel = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return header + (control + pixel) * num_frames + b"\x3b"


def make_growing_video(codec: str, container: str, sizes: tuple[int, int], num_frames: int = 4) -> bytes:
    """One track whose square frames have the first size, then the second."""
    between = {"libvpx": "ivf", "libx264": "h264"}[codec]
    buffer, stream, number = io.BytesIO(), None, 0
    with av.open(buffer, "w", format=container) as output:
        for size in sizes:
            video = make_video(num_frames=num_frames, width=size, height=size, codec=codec, container=between)
            with av.open(io.BytesIO(video)) as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream, packet.time_base = stream, Fraction(1, 8)
                        packet.pts = packet.dts = number
                        number += 1
                        output.mux(packet)
    return buffer.getvalue()


def make_lying_mp4(num_samples: int) -> bytes:
    """An mp4 of a thousand bytes whose table of samples claims this many, of one byte each."""
    video = bytearray(make_video(num_frames=8, codec="mpeg4", options={"g": "1"}))
    sizes, times = video.index(b"stsz"), video.index(b"stts")
    struct.pack_into(">II", video, sizes + 8, 1, num_samples)
    struct.pack_into(">I", video, times + 12, num_samples)
    return bytes(video)
