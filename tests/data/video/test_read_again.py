"""A video that is open since it was indexed is read from its beginning again, with the frames of one opened anew."""

import numpy as np
import pytest

from mama_ray.data.video import pyav_reader
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.packets import packets_again
from tests.data.video.test_real_clips import ROWS, SHARED
from tests.data.video.video_factory import make_song_with_cover, make_video

MANY = {"num_frames": 48, "fps": 24}
KINDS = {
    "mp4": {"options": {"bf": "3"}},
    "an open beginning": {"options": {"bf": "5", "x264-params": "open-gop=1:keyint=16:b-pyramid=strict:b-adapt=0"}},
    "with sound": {"with_audio": True, "options": {"bf": "3", "g": "12"}},
    "in fragments": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "options": {"bf": "3", "g": "12"}},
    "mov": {"container": "mov", "rotation": 90},
    "matroska": {"container": "matroska", "options": {"bf": "2", "g": "20"}, "with_audio": True},
    "webm": {"codec": "libvpx-vp9"},
    "av1": {"codec": "libsvtav1"},
    "mpeg4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "variable": {"timestamps_s": [number / 24 + (number > 20) for number in range(48)], "options": {"bf": "3"}},
}


@pytest.fixture
def opened(monkeypatch) -> list:
    """What was opened to be read, from here on."""
    found, real = [], pyav_reader.open_video

    def noted(*given):
        found.append(given)
        return real(*given)

    monkeypatch.setattr(pyav_reader, "open_video", noted)
    return found


def both(video, numbers: np.ndarray, monkeypatch, **size: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames of these numbers, read again and opened anew."""
    decoders = [VideoDecoder(video, **size) for _ in range(2)]
    again = decoders[0].frames_by_index(numbers % decoders[0].num_frames)
    decoders[1]._still_open = None
    return again, decoders[1].frames_by_index(numbers % decoders[1].num_frames)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_read_again_are_those_of_a_file_opened_anew(kind, opened, monkeypatch):
    video, rng = make_video(**MANY, **KINDS[kind]), np.random.default_rng(0)
    for num_frames in (1, 4, 48):
        numbers = np.sort(rng.choice(48, num_frames, replace=False))
        for size in ({}, {"width": 32, "height": 24}):  # with a size no frame is looked at before
            again, anew = both(video, numbers, monkeypatch, **size)
            assert np.array_equal(again, anew)
            assert len(opened) == 1  # by the second one alone
            opened.clear()


def test_a_cut_off_file_is_read_again_as_far_as_it_goes(monkeypatch):
    whole = make_video(**MANY, container="matroska", options={"bf": "3", "g": "12"})
    again, anew = both(whole[: len(whole) * 2 // 3], np.arange(0, 48, 5), monkeypatch)
    assert np.array_equal(again, anew)


def test_the_second_reading_opens_the_file_anew(opened):
    decoder = VideoDecoder(make_video(**MANY))
    first = decoder.frames_by_index([3, 7])
    assert not opened
    assert np.array_equal(decoder.frames_by_index([3, 7]), first) and len(opened) == 1


def test_a_container_that_does_not_go_back_is_opened_anew(opened, monkeypatch):
    video = make_video(**MANY)
    wanted = VideoDecoder(video).frames_by_index([5, 30])
    other = VideoDecoder(video)
    second = int(other._index.pts[1]), int(other._index.dts[1])  # as if another one came first
    object.__setattr__(other._index, "first", second)
    still_open = other._still_open
    assert np.array_equal(other.frames_by_index([5, 30]), wanted) and len(opened) == 1
    with pytest.raises(AssertionError, match="not open"):
        packets_again(still_open.container, still_open.stream, other._index)  # closed, not left behind


def test_what_need_not_go_back_is_not_kept_open():
    assert VideoDecoder(make_video(**MANY, container="mpegts"))._still_open is None
    assert VideoDecoder(make_video(**MANY, codec="gif"))._still_open is None


def test_a_song_with_a_cover_is_read_again(monkeypatch):
    again, anew = both(make_song_with_cover(video=make_video(**MANY)), np.array([2, 9]), monkeypatch)
    assert np.array_equal(again, anew)


@pytest.mark.skipif(not ROWS, reason="../shared/data/clips.csv is not there")
@pytest.mark.slow
def test_real_clips_read_again_are_those_opened_anew(monkeypatch):
    rng, num_kept = np.random.default_rng(0), 0
    for row in ROWS:
        try:
            num_kept += VideoDecoder(SHARED / row["file"])._still_open is not None
        except ValueError:
            continue  # some of them are no videos
        again, anew = both(SHARED / row["file"], np.sort(rng.integers(10_000, size=6)), monkeypatch, short_side=64)
        assert np.array_equal(again, anew), row["file"]
    assert num_kept > 50
