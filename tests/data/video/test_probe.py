import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.probe import probe_video
from tests.data.video.video_factory import count_decodable_frames, make_audio_only, make_damaged_video, make_video


def test_a_video_is_described():
    info = probe_video(make_video(num_frames=12, width=96, height=64, fps=24))
    assert (info.width, info.height, info.num_frames, info.codec, info.rotation) == (96, 64, 12, "h264", 0)
    assert info.duration_s == pytest.approx(0.5, abs=1e-3)
    assert info.fps == pytest.approx(24, rel=1e-3)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotation_is_reported_and_the_size_is_as_shown(rotation):
    info = probe_video(make_video(width=96, height=64, rotation=rotation))
    assert (info.width, info.height, info.rotation) == (96, 64, rotation)


def test_variable_frame_rate_has_its_true_duration():
    info = probe_video(make_video(timestamps_s=[0, 0.1, 0.2, 1.0, 1.1, 1.2, 3.0, 3.1], num_frames=8))
    assert info.duration_s == pytest.approx(3.2, abs=0.05)
    assert info.fps == pytest.approx(8 / info.duration_s)


@pytest.mark.parametrize(
    "kind",
    [
        {"codec": "libvpx-vp9", "container_options": {"live": "1"}},
        {"container": "matroska", "container_options": {"live": "1"}},
        {"codec": "gif"},
        {"container": "avi"},
        {"container": "mpegts"},
        {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ],
    ids=["webm without duration", "matroska without duration", "gif", "avi", "mpegts", "fragmented mp4"],
)
def test_duration_and_count_do_not_depend_on_header_fields(kind):
    info = probe_video(make_video(num_frames=16, **kind))
    assert info.num_frames == 16
    assert info.duration_s == pytest.approx(2, abs=0.03)


def test_a_single_frame_has_a_duration():
    assert probe_video(make_video(num_frames=1)).duration_s > 0


def test_sound_longer_than_the_picture_does_not_count():
    assert probe_video(make_video(num_frames=8, with_audio=True)).duration_s == pytest.approx(1.0)


def test_sound_only_is_refused():
    with pytest.raises(DecodeError, match="no video stream"):
        probe_video(make_audio_only())


def test_metadata_in_a_foreign_encoding_does_not_matter():
    video = make_video(container="matroska")
    assert video.count(b"Lavf") > 0
    assert probe_video(video.replace(b"Lavf", b"\xff\xfe\xfd\xfc")).num_frames == 8


def test_only_frames_that_decode_are_counted():
    assert count_decodable_frames(make_video(num_frames=12)) == 12
    damaged = make_damaged_video(num_frames=12, first_bad=5, num_bad=3)
    assert probe_video(damaged).num_frames == 12
    assert count_decodable_frames(damaged) == 9
