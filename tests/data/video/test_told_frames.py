import io

import av
import numpy as np
import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.settings import DecodeConfig
from tests.data.video.video_factory import frame_number, make_video


def numbers(frames):
    return [frame_number(frame) for frame in frames]


def with_clock(video, container, time_base_per_frame, places):
    """The packets of a video without B-frames, at these places of a clock."""
    buffer, places = io.BytesIO(), iter(places)
    with av.open(buffer, "w", format=container) as output, av.open(io.BytesIO(video)) as source:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = next(places) * time_base_per_frame
                packet.stream = stream
                output.mux(packet)
    return buffer.getvalue()


def test_an_avi_whose_pictures_stay_is_whole():
    """Screen recorders leave empty chunks where nothing changes; they count as frames in its header."""
    plain = make_video(num_frames=8, codec="mpeg4", container="avi", options={"g": "4"})
    places = [0, 1, 2, 20, 21, 40, 60, 61]
    video = with_clock(plain, "avi", 1, places)
    with av.open(io.BytesIO(video)) as container:
        assert container.streams.video[0].frames > 2 * 8
    decoder = VideoDecoder(video)
    np.testing.assert_allclose(decoder.timestamps_s, np.array(places) / 8)
    assert numbers(decoder.frames_at([0.1, 1.9, 3.0, 7.7])) == [0, 2, 4, 7]
    with av.open(io.BytesIO(video)) as container:
        fourth = [packet.pos for packet in container.demux(video=0)][3]
    with pytest.raises(DecodeError, match="cut off"):
        probe_video(video[:fourth])


def test_ivf_with_ticks_for_frames_is_whole():
    video = make_video(num_frames=8, codec="libvpx", container="ivf")
    # As FFmpeg's command line writes it for a clock of milliseconds.
    video = video[:24] + (1000).to_bytes(4, "little") + video[28:]
    assert numbers(VideoDecoder(video).frames_by_index(range(8))) == list(range(8))


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_each_frame_of_recordings_that_overlap_is_found_alone(reader):
    """The last picture of the first is shown after the key frame that begins the second."""
    plain = make_video(num_frames=8, container="mpegts", options={"g": "4", "bf": "0"})
    clocks = [range(0, 16, 2), [13, *range(14, 28, 2)]]
    video = b"".join(with_clock(plain, "mpegts", 90_000 // 16, clock) for clock in clocks)
    decoder = VideoDecoder(video, config=DecodeConfig(reader=reader))
    shown = numbers(decoder.frames_by_index(range(16)))
    assert shown == [*range(7), 0, 7, *range(1, 8)]
    assert [frame_number(decoder.frames_by_index([number])[0]) for number in range(16)] == shown
