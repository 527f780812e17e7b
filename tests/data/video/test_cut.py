import numpy as np
import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.probe import probe_video
from tests.data.video.video_factory import frame_number, is_upright, make_audio_only, make_video


def numbers(video):
    decoder = VideoDecoder(video)
    return [frame_number(frame) for frame in decoder.frames_by_index(range(decoder.num_frames))]


@pytest.mark.parametrize(
    "kind",
    [
        {"options": {"g": "5"}},
        {"codec": "libvpx-vp9"},
        {"codec": "gif"},
        {"container": "avi"},
        {"container": "mpegts"},
        {"rotation": 90},
        {"rotation": 180},
        {"with_audio": True},
    ],
    ids=str,
)
def test_the_cut_holds_exactly_the_frames_of_the_interval(kind):
    video = make_video(num_frames=16, width=96, height=64, **kind)
    clip = cut_clip(video, 0.5, 1.25)
    info = probe_video(clip)
    assert numbers(clip) == [4, 5, 6, 7, 8, 9]
    assert info.duration_s == pytest.approx(0.75, abs=0.015)
    assert (info.codec, info.width, info.height, info.rotation) == ("h264", 96, 64, 0)
    assert is_upright(VideoDecoder(clip).frames_by_index([0])[0])


def test_the_interval_is_half_open():
    video = make_video(num_frames=16)
    assert numbers(cut_clip(video, 0.25, 0.375)) == [2]
    assert numbers(cut_clip(video, 0.3, 0.55)) == [2, 3, 4]


def test_variable_timing_is_kept():
    video = make_video(timestamps_s=[0, 0.1, 0.2, 1.0, 1.1, 1.2, 3.0, 3.1])
    clip = cut_clip(video, 0.1, 3.05)
    np.testing.assert_allclose(VideoDecoder(clip).timestamps_s, [0, 0.1, 0.9, 1.0, 1.1, 2.9], atol=2e-3)
    assert probe_video(clip).duration_s == pytest.approx(2.95, abs=2e-3)


def test_a_frame_that_stays_through_the_interval_fills_it():
    clip = cut_clip(make_video(timestamps_s=[0, 1, 2, 3, 4, 5, 6, 7]), 1.2, 1.7)
    assert numbers(clip) == [1]
    assert probe_video(clip).duration_s == pytest.approx(0.5, abs=2e-3)


def test_the_same_request_gives_the_same_bytes():
    video = make_video(num_frames=16)
    assert cut_clip(video, 0.25, 1.5) == cut_clip(video, 0.25, 1.5)


def test_odd_sizes_lose_one_line():
    info = probe_video(cut_clip(make_video(codec="gif", width=65, height=47), 0, 0.5))
    assert (info.width, info.height) == (64, 46)


def test_an_end_beyond_the_video_is_clamped_to_it():
    clip = cut_clip(make_video(num_frames=8), 0.5, 100)
    assert numbers(clip) == [4, 5, 6, 7]
    assert probe_video(clip).duration_s == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize(
    ("start_s", "end_s", "reason"),
    [
        (1.0, 2.0, "starts after the video's end: got 1.0 s, limit 1.000 s"),
        (0.5, 0.5, "end must come after"),
        (0.5, 0.2, "end must come after"),
        (-1.0, 0.5, "end must come after"),
        (float("nan"), 0.5, "end must come after"),
    ],
)
def test_a_wrong_interval_is_refused(start_s, end_s, reason):
    with pytest.raises(DecodeError, match=reason):
        cut_clip(make_video(num_frames=8), start_s, end_s)


def test_what_is_not_a_video_is_refused():
    for data in (b"", b"not a video" * 100, make_audio_only()):
        with pytest.raises(DecodeError):
            cut_clip(data, 0, 1)
