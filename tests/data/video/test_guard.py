"""The guarded child: facts of good videos, and a crash or a hang that costs one video."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mama_ray.data.video import guarded, sampled
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.sampled import sampled_frames
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.storage.failures import told_of_storage
from mama_ray.storage.places import storage_errors
from tests.data.video.hostile_factory import make_costly_gif, make_growing_video, make_lying_mp4
from tests.data.video.video_factory import make_video
from tests.fuzz.video_fuzz import peak_mib

GROWING = [("libx264", "matroska"), ("libx264", "mpegts"), ("libvpx", "matroska")]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(make_video(num_frames=8, width=48, height=48, fps=4))
    return str(path)


@pytest.fixture
def guard():
    guard = VideoGuard(DecodeConfig(timeout_s=60))
    yield guard
    guard.close()


def test_facts_of_the_whole_and_of_a_part(guard, video, tmp_path):
    whole = guard.inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))
    assert (whole["duration_s"], whole["end_s"], whole["width"], whole["is_cut"]) == (2.0, 2.0, 48, False)
    assert not (tmp_path / "cut.mp4").exists()
    part = guard.inspect(video, 0.5, 1.5, str(tmp_path / "cut.mp4"))
    assert (part["num_frames"], part["end_s"], part["is_cut"]) == (4, 1.5, True)


@pytest.mark.parametrize("size", [{"width": 20, "height": 30}, {"short_side": 24}])
def test_frames_of_the_child_are_those_of_this_process(guard, tmp_path, size):
    (tmp_path / "v.mp4").write_bytes(make_video(num_frames=8, width=64, height=48))
    frames = guard.sampled_frames(tmp_path / "v.mp4", num_frames=5, size=size)
    np.testing.assert_array_equal(frames, sampled_frames(tmp_path / "v.mp4", num_frames=5, size=size))
    os.kill(guard.process_id, signal.SIGKILL)
    (tmp_path / "v.mp4").write_bytes(b"nothing")
    with pytest.raises(DecodeError, match="not a readable video"):
        guard.sampled_frames(tmp_path / "v.mp4", num_frames=5, size=size)


def test_an_end_a_little_off_counts_as_the_whole(guard, video, tmp_path):
    assert not guard.inspect(video, 0.0, 1.97, str(tmp_path / "cut.mp4"))["is_cut"]


def test_one_child_serves_all_videos(guard, video, tmp_path):
    guard.inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))
    child = guard.process_id
    with pytest.raises(DecodeError, match="no such file"):
        guard.inspect(str(tmp_path / "gone.mp4"), 0.0, None, str(tmp_path / "cut.mp4"))
    guard.inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))
    assert guard.process_id == child


def test_a_child_that_was_killed_between_videos_costs_nothing(guard, video, tmp_path):
    guard.inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))
    os.kill(guard.process_id, signal.SIGKILL)
    assert guard.inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))["width"] == 48


def test_a_child_that_cannot_start_is_no_fault_of_the_video(video, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"the decoding process cannot start: exit status 1"):
        VideoGuard().inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))


def test_no_room_for_the_cut_is_no_fault_of_the_video(guard, video, tmp_path):
    with pytest.raises(OSError, match="No such file or directory"):
        guard.inspect(video, 0.5, 1.5, str(tmp_path / "no_folder" / "cut.mp4"))


def test_no_room_for_the_cut_names_the_folder_of_the_cut(guard, video, small_disk, monkeypatch):
    scratch = small_disk("4k")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    (scratch / "cut.mp4").write_bytes(b"x" * 4096)
    with (
        pytest.raises(UserError, match=f"no space left on the storage: got {scratch}: .*TMPDIR"),
        storage_errors("/out"),
    ):
        guard.inspect(video, 0.5, 1.5, str(scratch / "other.mp4"))


def test_a_child_without_memory_is_no_fault_of_the_video(video, tmp_path):
    guard = VideoGuard(DecodeConfig(max_memory_gib=0.2))  # enough to begin, too little to load the decoder
    try:
        with pytest.raises(OSError, match="Cannot allocate memory") as told:
            guard.inspect(video, 0, None, str(tmp_path / "cut.mp4"))
    finally:
        guard.close()
    assert told.value.errno == errno.ENOMEM
    assert str(told_of_storage(told.value, "/out")).startswith("not enough memory to read or write: got /out")


_PARENT = """
import sys
from mama_ray.data.video.guard import VideoGuard
guard = VideoGuard()
try:
    guard.inspect("no such file", 0.0, None, "")
except ValueError:
    print(guard.process_id, flush=True)
guard.sampled_frames(sys.argv[1], num_frames=2, size={"width": 8, "height": 8})
"""


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cpu_ticks(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[11])


def wait_until_it_decodes(child: int) -> None:
    before = cpu_ticks(child)
    end = time.monotonic() + 60
    while cpu_ticks(child) < before + 30 and time.monotonic() < end:
        time.sleep(0.05)


def ends_soon(child: int) -> bool:
    end = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(child)


def test_a_child_that_is_decoding_ends_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "v.gif").write_bytes(make_costly_gif(4000))
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path / "v.gif")], stdout=subprocess.PIPE)
    with parent:
        child = int(parent.stdout.readline())
        wait_until_it_decodes(child)
        parent.kill()
    assert ends_soon(child)


def test_an_interrupt_from_the_keyboard_ends_the_child_without_a_traceback_of_its_own(tmp_path):
    (tmp_path / "v.gif").write_bytes(make_costly_gif(4000))
    command = [sys.executable, "-c", _PARENT, str(tmp_path / "v.gif")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    with parent:
        child = int(parent.stdout.readline())
        wait_until_it_decodes(child)
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        told = parent.stderr.read().decode()
    assert ends_soon(child)
    assert told.count("KeyboardInterrupt") == 1 and "inspection.py" not in told


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_bytes_and_offsets_go_to_the_child(reader):
    video = make_video(num_frames=16, width=64, height=48)
    config = DecodeConfig(reader=reader)
    transform = TransformConfig(image_size=32)
    ours, theirs = (
        load_clip_frames(
            video, num_frames=5, transform=transform, rng=np.random.default_rng(3), decode=config, is_guarded=is_guarded
        )
        for is_guarded in (False, True)
    )
    np.testing.assert_array_equal(ours, theirs)
    fit = (30, 20)
    for ours, theirs in zip(
        sampled.spread_frames(video, num_frames=5, fit=fit, decode=config),
        guarded.spread_frames(video, num_frames=5, fit=fit, decode=config),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_second_video_is_read_whole_after_a_longer_one():
    long, short = make_video(num_frames=40, width=128, height=96), make_video(num_frames=4)
    assert len(long) > len(short)
    for video in (long, short):
        frames = guarded.sampled_frames(video, num_frames=4, size={"width": 32, "height": 32})
        np.testing.assert_array_equal(frames, sampled_frames(video, num_frames=4, size={"width": 32, "height": 32}))


def test_a_video_that_needs_too_much_memory_is_refused_within_the_limit():
    guard = VideoGuard(DecodeConfig(max_memory_gib=1.0))
    try:
        with pytest.raises(DecodeError):
            guard.sampled_frames(make_lying_mp4(2**26), num_frames=2, size={"width": 8, "height": 8})
        assert guard.process_id is None or peak_mib(guard) < 1024
        good = guard.sampled_frames(make_video(), num_frames=2, size={"width": 8, "height": 8})
        assert good.shape == (2, 8, 8, 3)
    finally:
        guard.close()


def test_frames_that_grow_over_the_limit_are_refused_in_every_way_of_reading(tmp_path):
    small = DecodeConfig(max_pixels=64 * 64, timeout_s=20)
    guard = VideoGuard(small)
    try:
        for codec, container in GROWING:
            video = make_growing_video(codec, container, (64, 1664))
            path = tmp_path / "grows"
            path.write_bytes(video)
            size = {"width": 32, "height": 32}
            for read in (
                partial(guard.sampled_frames, video, num_frames=8, size=size),
                partial(guard.spread_frames, video, num_frames=8, fit=(32, 32)),
                partial(guard.located_frames, video, num_frames=8, size={"long_side": 32}),
                partial(guard.inspect, str(path), 0.0, None, ""),
                partial(guard.inspect, str(path), 0.0, 0.9, str(tmp_path / "cut.mp4")),
                partial(guard.find_scenes, str(path), SceneConfig(detector="content")),
            ):
                with pytest.raises(DecodeError, match="too large"):
                    read()
    finally:
        guard.close()


def test_a_clip_that_every_epoch_would_wait_for_is_refused_at_its_trial(tmp_path):
    path = tmp_path / "v.gif"
    path.write_bytes(make_costly_gif(100, 2048, 2048))
    for limit_s, reason in (
        (1e-3, r"the clip takes too long to decode: got .* s for 4 frames, limit 0.004 s"),
        (60, ""),
    ):
        guard = VideoGuard(DecodeConfig(max_frame_s=limit_s))
        with pytest.raises(DecodeError, match=reason) if reason else contextlib.nullcontext():
            guard.inspect(str(path), 0.0, None, "")
        guard.close()


def test_more_frames_than_the_limit_are_refused():
    with pytest.raises(DecodeError, match="the video has too many frames: limit 8"):
        VideoDecoder(make_video(num_frames=9), config=DecodeConfig(max_frames=8))
    assert VideoDecoder(make_video(num_frames=8), config=DecodeConfig(max_frames=8)).num_frames == 8
