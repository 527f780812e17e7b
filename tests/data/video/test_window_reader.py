"""Windows of a video are what their moments show, each second decoded once, whatever is wrong with the file."""

import os
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mama_ray.data.video import window_reader
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.guarded_windows import WindowDecoding
from mama_ray.data.video.sampled import sampled_frames, spread_frames
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.window_reader import FramesOfWindow, WindowReader, WindowRequest
from tests.data.video.video_factory import frame_number, is_upright, make_video
from tests.processes import descendants, title

SPREAD = WindowRequest(6, "spread", {"short_side": 48})
MOMENTS = WindowRequest(4, "moments", {"short_side": 48})
FPS = 8


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("windows") / "video.mp4"
    path.write_bytes(make_video(num_frames=96, fps=FPS, options={"g": "24", "bf": "2"}))
    return path


def read_all(path: Path, windows, request=MOMENTS, config: DecodeConfig | None = None):
    reader = WindowReader(path, windows, request, config or DecodeConfig())
    found = []
    for _ in windows:
        try:
            found.append(reader.read())
        except DecodeError as error:
            found.append(error)
    reader.close()
    return found, reader.num_decoded


def whole(found) -> list[FramesOfWindow]:
    assert not [one for one in found if isinstance(one, DecodeError)]
    return found


def numbers(found: FramesOfWindow) -> list[int]:
    return [frame_number(frame) for frame in found.frames]


def seconds(count: int, length: float = 1.0, stride: float = 1.0) -> list[tuple[float, float]]:
    return [(number * stride, number * stride + length) for number in range(count)]


def test_consecutive_windows_decode_every_frame_once(video):
    found, num_decoded = read_all(video, seconds(12))
    assert num_decoded == 96
    assert [numbers(one) for one in whole(found)] == [
        [(FPS * second + frame) % 16 for frame in (1, 3, 5, 7)] for second in range(12)
    ]
    assert found[3].indices.tolist() == [1, 3, 5, 7]
    assert found[3].times_s.tolist() == [0.125, 0.375, 0.625, 0.875]


def test_overlapping_windows_decode_every_frame_once(video):
    found, num_decoded = read_all(video, seconds(41, 2.0, 0.25))
    assert 90 <= num_decoded <= 96
    assert numbers(whole(found)[5]) == [(10 + frame) % 16 for frame in (2, 6, 10, 14)]


def test_a_window_has_the_frames_of_the_clip_that_would_be_cut_out_of_the_video(video):
    for start_s, end_s in ((0.0, 1.0), (1.25, 2.875), (7.125, 12.0), (4.0, 4.125)):
        clip = cut_clip(video, start_s, end_s)
        frames, indices = spread_frames(clip, num_frames=6, fit=(64, 48))
        window = whole(read_all(video, [(start_s, end_s)], WindowRequest(6, "spread", {"fit": (64, 48)}))[0])[0]
        assert window.indices.tolist() == indices.tolist()
        assert np.abs(window.frames.astype(int) - frames).mean() < 3  # cutting encodes once more
        sampled = sampled_frames(clip, num_frames=4, size={"short_side": 48})
        moments = whole(read_all(video, [(start_s, end_s)])[0])[0]
        assert [frame_number(frame) for frame in moments.frames] == [frame_number(frame) for frame in sampled]


def test_what_lies_between_windows_is_stepped_over(video):
    found, num_decoded = read_all(video, [(0.0, 0.5), (9.2, 9.7)])
    assert num_decoded < 30 and len(whole(found)) == 2
    assert numbers(found[1])[0] == int((9.2 + 0.5 / 8) * FPS) % 16


@settings(max_examples=40, deadline=None)
@given(
    windows=st.lists(st.tuples(st.floats(0, 11.9), st.floats(0.01, 12)).map(lambda w: (w[0], w[0] + w[1])), min_size=1,
                     max_size=12),
    most_held=st.sampled_from([1, 20, 1000]), is_ordered=st.booleans(), rule=st.sampled_from(["spread", "moments"]),
)  # fmt: skip
def test_any_windows_have_the_frames_that_are_decoded_one_by_one(video, windows, most_held, is_ordered, rule):
    windows = sorted(windows) if is_ordered else windows
    decoder = VideoDecoder(video, short_side=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_reader, "_MOST_HELD_BYTES", most_held * 64 * 48 * 3)
        found = whole(read_all(video, windows, WindowRequest(5, rule, {"short_side": 48}))[0])
    for (start_s, _), one in zip(windows, found, strict=True):
        first = int(np.searchsorted(decoder.timestamps_s, start_s + 1e-6, side="right")) - 1
        assert np.array_equal(one.frames, decoder.frames_by_index(one.indices + first))


def test_nested_windows_hold_no_more_than_the_bound(video, monkeypatch):
    monkeypatch.setattr(window_reader, "_MOST_HELD_BYTES", 12 * 64 * 48 * 3)
    reader = WindowReader(video, [(0.0, 12.0), *seconds(12)], MOMENTS, DecodeConfig())
    for _ in range(13):
        reader.read()
        assert len(reader._held) <= 12
    reader.close()


def test_frames_that_nobody_wants_any_more_are_let_go(video):
    reader = WindowReader(video, seconds(12), SPREAD, DecodeConfig())
    for _ in range(12):
        reader.read()
        assert not reader._held
    reader.close()


def test_a_variable_rate_is_read_by_its_times(tmp_path):
    times = [0.0, 0.1, 0.2, 3.0, 3.1, 5.5, 5.6, 7.9]
    path = tmp_path / "vfr.mp4"
    path.write_bytes(make_video(num_frames=8, timestamps_s=times))
    found, num_decoded = read_all(path, [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (5.0, 6.0)])
    assert [numbers(one) for one in whole(found)] == [[1, 2, 2, 2], [2] * 4, [2, 2, 4, 4], [4, 4, 6, 6]]
    assert num_decoded <= 8


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_windows_are_upright(tmp_path, rotation):
    path = tmp_path / "turned.mp4"
    path.write_bytes(make_video(num_frames=16, width=64, height=96, rotation=rotation))
    for one in whole(read_all(path, seconds(2))[0]):
        assert one.frames.shape == (4, 72, 48, 3)
        assert all(is_upright(frame) for frame in one.frames)


@pytest.mark.parametrize(("codec", "container"), [("mpeg4", "avi"), ("libx264", "mpegts"), ("libx264", "h264"),
                                                  ("libvpx-vp9", "webm"), ("libx264", "matroska")])  # fmt: skip
def test_containers_with_and_without_times_are_read(tmp_path, codec, container):
    path = tmp_path / "video.bin"
    path.write_bytes(make_video(num_frames=48, codec=codec, container=container, options={"g": "12"}))
    decoder = VideoDecoder(path, short_side=48)
    windows = [(part * decoder.duration_s / 6, (part + 1) * decoder.duration_s / 6) for part in (0, 1, 4)]
    found, num_decoded = read_all(path, windows)
    assert [numbers(one) for one in whole(found)] == [[1, 3, 5, 7], [9, 11, 13, 15], [1, 3, 5, 7]]
    assert num_decoded <= 48


def test_a_damaged_stretch_costs_its_own_windows_alone(tmp_path):
    rng = np.random.default_rng(0)
    data = bytearray(make_video(num_frames=240, width=320, height=240, options={"g": "8", "bf": "0"}))
    middle = len(data) // 2
    data[middle - 400 : middle + 400] = rng.bytes(800)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    found, _ = read_all(path, seconds(30))
    good = [second for second, one in enumerate(found) if not isinstance(one, DecodeError)]
    assert len(good) >= 20 and {0, 1, 2, 28, 29} <= set(good)
    for second in (0, 1, 2, 28, 29):
        assert numbers(found[second]) == [(8 * second + frame) % 16 for frame in (1, 3, 5, 7)]


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libx264", "matroska"), ("libx264", "mpegts"),
                                                  ("mpeg4", "avi")])  # fmt: skip
def test_whatever_frame_of_a_damaged_file_can_be_reached_is_read(tmp_path, codec, container):
    rng, path, num_read = np.random.default_rng(5), tmp_path / "damaged.bin", 0
    data = make_video(num_frames=80, codec=codec, container=container, options={"g": "16"})
    for _ in range(6):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(len(damaged), size=rng.integers(1, 12))] ^= 0x55
        path.write_bytes(damaged.tobytes())
        try:
            decoder, reader = (
                VideoDecoder(path, short_side=48),
                WindowReader(path, seconds(10), MOMENTS, DecodeConfig()),
            )
        except DecodeError:
            continue
        for start_s, _ in seconds(10):
            first = max(0, int(np.searchsorted(decoder.timestamps_s, start_s + 1e-6, side="right")) - 1)
            wanted = np.clip(decoder.indices_at(start_s + (np.arange(4) + 0.5) / 4), first, None)
            try:
                num_read += len(reader.read().frames)
            except DecodeError:
                with pytest.raises(DecodeError):
                    decoder.frames_by_index(wanted)
    assert num_read > 100


def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path):
    data = make_video(num_frames=240, container="mpegts", options={"g": "8"})
    path = tmp_path / "cut.ts"
    path.write_bytes(data[: len(data) * 2 // 3])
    found, _ = read_all(path, seconds(15))
    assert [numbers(one) for one in whole(found)] == [[(8 * s + f) % 16 for f in (1, 3, 5, 7)] for s in range(15)]


def test_a_video_without_pictures_is_refused(tmp_path):
    path = tmp_path / "no.mp4"
    path.write_bytes(b"nothing of a video")
    with pytest.raises(DecodeError, match="not a readable video"):
        WindowReader(path, seconds(1), MOMENTS, DecodeConfig())


def test_a_child_gives_the_same_and_counts_what_it_decodes(video):
    windows = seconds(44, 2.0, 0.25)
    inside, _ = read_all(video, windows, SPREAD)
    decoding = WindowDecoding(str(video), windows, SPREAD, DecodeConfig())
    for one, other in zip(decoding, inside, strict=True):
        assert np.array_equal(one.frames, other.frames) and np.array_equal(one.indices, other.indices)
        assert np.array_equal(one.times_s, other.times_s)
    assert 90 <= decoding.num_decoded <= 96


@pytest.mark.parametrize("is_gone", [False, True], ids=["at once", "long ago"])
def test_a_child_that_is_killed_is_replaced_at_its_window(video, is_gone):
    from mama_ray.data.video import guarded

    decoding = WindowDecoding(str(video), seconds(12), MOMENTS, DecodeConfig(timeout_s=33.0))
    found = []
    for number, one in enumerate(decoding):
        found.append(one)
        if number in (3, 7):
            child = _child_of(guarded._guards_for(DecodeConfig(timeout_s=33.0)))
            child.kill()
            while is_gone and child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
    assert [numbers(one) for one in whole(found)] == [
        [(FPS * second + frame) % 16 for frame in (1, 3, 5, 7)] for second in range(12)
    ]


def _child_of(guards):
    import mama_ray.data.video.inspection as program

    assert guards._idle.empty()  # it is in use
    marked = [child for child in descendants(os.getpid()) if program.__name__ in title(child)]
    return marked[-1]
