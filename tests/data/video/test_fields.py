import io

import av
import numpy as np
import pytest

from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.fields import as_whole_picture
from mama_ray.data.video.settings import DecodeConfig
from tests.data.video.video_factory import make_video


def striped_video(codec, container, options):
    """Six pictures whose even lines are light and whose odd ones are dark, as of a thing that moved between them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        pixels = np.full((64, 64, 3), 40, np.uint8)
        pixels[::2] = 200
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


KINDS = {
    "mpeg2": ("mpeg2video", "mpeg", {"flags": "+ildct+ilme", "qscale": "1", "qmin": "1"}),
    "h264": ("libx264", "mp4", {"x264-params": "tff=1", "qp": "1"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_interlaced_pictures_are_scaled_as_whole_ones(kind, reader):
    video = striped_video(*KINDS[kind])
    with av.open(io.BytesIO(video)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames = VideoDecoder(video, width=32, height=32, config=DecodeConfig(reader=reader)).frames_by_index([0, 4])
    # Fields that are scaled each by itself leave lines of 200 beside lines of 40.
    np.testing.assert_allclose(frames[:, 4:-4].astype(int), 120, atol=4)  # the scaler mirrors what lies beyond an edge


def test_a_cut_of_interlaced_pictures_holds_their_lines():
    video = striped_video(*KINDS["h264"])
    whole = VideoDecoder(video).frames_by_index([2])[0].astype(int)
    clip = VideoDecoder(cut_clip(video, 0.08, 0.2))
    assert np.abs(clip.frames_by_index([0])[0] - whole).mean() < 4
    np.testing.assert_allclose(whole[::2].mean(), 200, atol=3)


def test_pictures_that_are_not_interlaced_are_the_same_object():
    with av.open(io.BytesIO(make_video(num_frames=1))) as container:
        frame = next(container.decode(video=0))
    assert as_whole_picture(frame) is frame
