"""Clocks that jump, repeat and run back, frames that grow on the way, and the way to a frame far into a file."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import SourceVideo, cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from tests.data.video.video_factory import frame_number, make_video

CASES = Path(__file__).resolve().parents[3] / "../shared/data/cases/videos"
READERS = ("pyav", "decord")


def recording(first, *, clock_s, container="mpegts", **options):
    """8 frames, numbered from `first`, in a second that begins at clock_s of the recorder's clock."""
    return make_video(
        first=first, num_frames=8, container=container, container_options={"output_ts_offset": str(clock_s)}, **options
    )


BROKEN = {
    "jumps ahead": (0, 1000),
    "runs back": (1000, 0),
    "runs back a little": (10, 9.5),
    "repeats": (5, 5),
    "wraps around": (2**33 / 90_000 - 1, 0),
    "jumps there and back": (100, 2000, 300),
}


def numbers(frames):
    return [frame_number(frame) for frame in frames]


@pytest.mark.parametrize("options", [{}, {"options": {"bf": "0"}}, {"codec": "mpeg4"}], ids=str)
@pytest.mark.parametrize("kind", BROKEN)
def test_the_gap_of_a_broken_clock_is_closed_in_every_path(kind, options):
    clocks = BROKEN[kind]
    video = b"".join(recording(8 * part, clock_s=clock_s, **options) for part, clock_s in enumerate(clocks))
    num = 8 * len(clocks)
    wanted = [number % 16 for number in range(num)]
    for reader in READERS:
        decoder = VideoDecoder(video, config=DecodeConfig(reader=reader))
        assert decoder.num_frames == num
        np.testing.assert_allclose(decoder.timestamps_s, np.arange(num) / 8, atol=0.3)
        assert numbers(decoder.frames_by_index(range(num))) == wanted
        assert numbers(decoder.frames_by_index([13])) == [13]
        assert numbers(VideoDecoder(video, width=40, height=40).frames_by_index([2, 9, 15])) == [2, 9, 15]
    start_s = float(decoder.timestamps_s[6])
    clip = VideoDecoder(cut_clip(video, start_s, float(decoder.timestamps_s[11])))
    assert numbers(clip.frames_by_index(range(5))) == [6, 7, 8, 9, 10]
    frames = load_clip_frames(video, num_frames=num // 2, transform=TransformConfig(image_size=48))
    assert len(set(numbers(frames))) >= 7
    assert len(set(make_clip_grid(video, ClipGridConfig(), side=192).frame_indices)) == 12


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/data/cases is not there")
def test_the_case_of_two_recordings_has_the_time_of_both():
    video = CASES / "jump.ts"
    assert probe_video(video).duration_s == pytest.approx(8, abs=0.01)
    decoder = VideoDecoder(video, width=64, height=48)
    frames = load_clip_frames(video, num_frames=12, transform=TransformConfig(image_size=48)).astype(int)
    assert np.abs(np.diff(frames, axis=0)).mean((1, 2, 3)).min() > 0.05  # no two of them are the same
    np.testing.assert_allclose(np.diff(decoder.timestamps_s), 0.1, atol=0.01)
    assert probe_video(cut_clip(video, 3.5, 4.5)).num_frames == 10


def test_a_short_gap_is_a_picture_that_stays():
    video = recording(0, clock_s=0, options={"bf": "0"}) + recording(8, clock_s=5, options={"bf": "0"})
    decoder = VideoDecoder(video)
    assert decoder.duration_s == pytest.approx(6, abs=0.05)
    assert numbers(decoder.frames_at([0.9, 3.0, 5.05])) == [7, 7, 8]


def with_time_stamps(videos, ticks, container):
    """The packets of these videos in one, with these time stamps."""
    buffer, stream, ticks = io.BytesIO(), None, iter(ticks)
    with av.open(buffer, "w", format=container) as output:
        for video in videos:
            with av.open(io.BytesIO(video)) as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = next(ticks)
                        packet.stream = stream
                        output.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("reader", READERS)
def test_frames_that_share_a_time_stamp_are_told_apart(reader):
    plain = make_video(num_frames=10, codec="mpeg4", options={"g": "4"})
    step = 12_800 // 8
    video = with_time_stamps([plain], [step * place for place in (0, 1, 2, 2, 2, 3, 4, 5, 5, 6)], "matroska")
    decoder = VideoDecoder(video, config=DecodeConfig(reader=reader))
    assert numbers(decoder.frames_by_index(range(10))) == list(range(10))
    assert numbers(decoder.frames_by_index([3, 8])) == [3, 8]
    assert decoder.num_replaced == 0
    np.testing.assert_allclose(decoder.timestamps_s[[2, 3, 4, 5]], [0.25, 0.251, 0.252, 0.375], atol=1e-3)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("container", ["mpegts", "h264"])
@pytest.mark.parametrize("size", [(96, 64), (1920, 1440)])
def test_frames_that_grow_over_the_limit_are_refused_in_every_path(size, container, reader):
    """The larger one is stopped by the decoder's own limit, the smaller by ours."""
    small = make_video(container=container)
    large = make_video(
        container=container, width=size[0], height=size[1], num_frames=2, options={"preset": "ultrafast", "bf": "0"}
    )
    config = DecodeConfig(max_pixels=64 * 48, reader=reader)
    for path in (
        lambda video: VideoDecoder(video, config=config).frames_by_index(range(10)),
        lambda video: cut_clip(video, 0, 9, config),
        lambda video: load_clip_frames(video, num_frames=16, transform=TransformConfig(image_size=32), decode=config),
        lambda video: make_clip_grid(video, ClipGridConfig(), side=192, decode=config),
    ):
        with pytest.raises(DecodeError, match=rf"frames are too large: got {size[0]}x{size[1]}, limit 3072 pixels"):
            path(small + large)
    # Within the limit it goes on at the size of the first frame.
    wide = VideoDecoder(small + large, config=DecodeConfig(reader=reader))
    assert numbers(wide.frames_by_index([7, 8, 9])) == [7, 0, 1]


MANY_KEYS = {
    "mp4": {"options": {"g": "12", "bf": "2"}, "with_audio": True},
    "matroska": {"options": {"g": "7", "bf": "2"}, "with_audio": True},
    "mpegts": {"options": {"g": "7", "bf": "3"}, "with_audio": True},
    "flv": {"options": {"g": "12"}, "with_audio": True},
    "mpeg": {"codec": "mpeg2video", "fps": 25},
    "webm": {"codec": "libvpx", "options": {"g": "7"}},
    "avi": {"options": {"g": "12", "bf": "2"}},
}


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_frames_of_webm_that_grow_over_the_limit_are_refused(codec):
    fast = {"deadline": "realtime", "cpu-used": "8"}
    small, large = (make_video(codec=codec, width=w, height=1024, num_frames=3, options=fast) for w in (64, 2560))
    video = with_time_stamps([small, large], range(0, 600, 100), "webm")
    assert VideoDecoder(video).frames_by_index(range(6)).shape == (6, 1024, 64, 3)
    with pytest.raises(DecodeError, match="frames become too large, or their size is damaged: limit 65536 pixels"):
        VideoDecoder(video, config=DecodeConfig(max_pixels=64 * 1024)).frames_by_index([0, 1, 2, 3, 4])


@pytest.mark.parametrize("container", MANY_KEYS)
def test_many_cuts_of_one_open_file_equal_cuts_of_one_each(container):
    video = make_video(num_frames=96, container=container, **MANY_KEYS[container])
    with SourceVideo(video) as source:
        # Forth, back, overlapping, and the beginning.
        for start in (2, 50, 10, 12, 90, 0, 61):
            times = [float(source._index.timestamps_s[number]) for number in (start, start + 5)]
            clip = source.cut(*times)
            assert clip == cut_clip(video, *times)
            assert numbers(VideoDecoder(clip).frames_by_index(range(5))) == [
                number % 16 for number in range(start, start + 5)
            ]
