"""Frames to an H.264 MP4 in memory, byte for byte the same for the same frames."""

import io
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

# ultrafast has no B frames, so any frame is cheap to reach; crf 16 keeps the colours of small objects. bitexact, here
# and in the muxer, leaves out versions and dates.
_CODEC_OPTIONS = {"preset": "ultrafast", "crf": "16", "flags": "+bitexact"}


def encode_mp4(frames: UInt8[np.ndarray, "frames height width 3"], fps: int) -> bytes:
    """Encode RGB frames; height and width are even."""
    buffer = io.BytesIO()
    # One for all frames: a new one each, as in VideoFrame.reformat, is a third of the time of a small clip.
    reformatter = VideoReformatter()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=_CODEC_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.thread_count = 1  # more would change the bits with the number of cores
        stream.gop_size = len(frames)
        for number, pixels in enumerate(frames):
            frame = reformatter.reformat(av.VideoFrame.from_ndarray(pixels, format="rgb24"), format="yuv420p")
            frame.pts = number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
