"""Frames that are not wanted are passed over, and those that are do not change by a bit."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from mama_ray.data.video import pyav_reader
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.packets import decode_frames
from tests.data.video.test_real_clips import ROWS, SHARED
from tests.data.video.video_factory import frame_number, make_damaged_video, make_video

MANY = {"num_frames": 64, "fps": 32}


@pytest.fixture
def decoded(monkeypatch) -> list:
    """The times of the frames that leave the decoder from here on."""
    found = []

    def noted(*given):
        for frame in decode_frames(*given):
            found.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav_reader, "decode_frames", noted)
    return found


def read(video: bytes | Path, numbers: np.ndarray, monkeypatch, *, is_all: bool = False, **size: int) -> np.ndarray:
    """The frames of these numbers; `is_all` decodes all frames on the way."""
    with monkeypatch.context() as patch:
        if is_all:
            patch.setattr(pyav_reader, "_WHOLE_FRAMES", ("nothing",))
        decoder = VideoDecoder(video, **size)
        return decoder.frames_by_index(numbers % decoder.num_frames)


KINDS = {
    "mp4": {"options": {"bf": "3"}},
    "mp4 with many keys": {"options": {"bf": "3", "g": "12"}},
    "mkv": {"options": {"bf": "2", "g": "20"}, "container": "matroska"},
    "pyramid, open": {"options": {"bf": "5", "x264-params": "open-gop=1:keyint=16:b-pyramid=strict:b-adapt=0"}},
    "without B-frames": {"options": {"bf": "0"}},
    "interlaced": {"options": {"x264-params": "tff=1:bframes=3"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_wanted_frames_are_those_of_a_pass_over_all(kind, decoded, monkeypatch):
    video, rng = make_video(**MANY, **KINDS[kind]), np.random.default_rng(0)
    for num_frames in (1, 4, 16, 64):
        numbers = np.sort(rng.choice(64, num_frames, replace=False))
        wanted = read(video, numbers, monkeypatch, is_all=True)
        of_all = len(decoded)
        decoded.clear()
        frames = read(video, numbers, monkeypatch)
        assert np.array_equal(frames, wanted)
        assert len(decoded) == len(set(decoded)) <= of_all  # nothing was read again
        if num_frames == 4 and kind in ("mp4", "mkv"):
            assert len(decoded) < of_all * 0.8
        decoded.clear()


def test_what_passes_over_nothing_is_as_it_was(decoded):
    for kind in ({"container": "mpegts", "options": {"bf": "3"}}, {"codec": "libvpx-vp9"}):
        VideoDecoder(make_video(**MANY, **kind)).frames_by_index([40])
        assert len(decoded) == 41
        decoded.clear()


def test_a_frame_that_does_not_decode_is_replaced_as_before():
    decoder = VideoDecoder(make_damaged_video(num_frames=12, first_bad=4, num_bad=2))
    shown = [frame_number(frame) for frame in decoder.frames_by_index([3, 4, 7])]
    assert shown == [3, 3, 7] and decoder.num_replaced == 1


@pytest.mark.skipif(not ROWS, reason="../shared/data/clips.csv is not there")
@pytest.mark.slow
def test_frames_of_real_clips_are_those_of_a_reader_that_decodes_all(monkeypatch):
    paths = [path for row in ROWS if (path := SHARED / row["file"]).suffix in (".mp4", ".mkv", ".mov")]
    assert len(paths) > 50
    rng = np.random.default_rng(0)
    for path in paths:
        numbers = np.sort(rng.integers(10_000, size=6))
        every = read(path, numbers, monkeypatch, is_all=True, short_side=64)
        assert np.array_equal(read(path, numbers, monkeypatch, short_side=64), every), path


def test_a_file_that_shows_damage_is_read_as_one_in_which_all_is_decoded(monkeypatch):
    whole = make_video(num_frames=96, width=160, height=120, fps=32, options={"bf": "3", "g": "40"})
    with av.open(io.BytesIO(whole)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    rng = np.random.default_rng(0)
    for start, size in places[5:60:6]:
        video = whole[:start] + bytes(size) + whole[start + size :]  # the decoder says that there is no frame in it
        numbers = np.sort(rng.integers(96, size=4))
        every = read(video, numbers, monkeypatch, is_all=True)
        assert np.array_equal(read(video, numbers, monkeypatch), every)
