"""Frames to the bytes of an H.264 mp4; the same frames give the same bytes."""

import io

import av
import numpy as np
from jaxtyping import UInt8

_OPTIONS = {
    "crf": "18",  # visually lossless: the compression is real, but no colour is lost to it
    "preset": "veryfast",
    "g": "4",  # a key frame every four, so that sparse sampling decodes little
    "bf": "0",
    "flags": "+bitexact",  # no versions, no dates
}


def encode_h264(frames: UInt8[np.ndarray, "frames height width 3"], fps: int) -> bytes:
    """Return an mp4 of RGB frames with even sides, yuv420p, without sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = (
            1  # with more, x264's decisions depend on their number
        )
        stream.options = _OPTIONS
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()
