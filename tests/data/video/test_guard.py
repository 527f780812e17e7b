"""The guarded child: facts of good videos, and a crash or a hang that costs one video."""

import os
import signal

import numpy as np
import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.sampled import sampled_frames
from mama_ray.data.video.settings import DecodeConfig
from tests.data.video.video_factory import make_video


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


class CrashingGuard(VideoGuard):
    """A guard whose child crashes in the middle of every video."""

    num_crashes = 0

    def _started(self):
        child = super()._started()
        os.kill(child.pid, signal.SIGSTOP)  # it gets the request and cannot be done before the crash
        return child

    def _read_line(self, child, timeout_s):
        if child is self._child_asked:
            self.num_crashes += 1
            os.kill(child.pid, signal.SIGSEGV)
            os.kill(child.pid, signal.SIGCONT)
        self._child_asked = child
        return super()._read_line(child, timeout_s)

    _child_asked = None


def test_a_video_that_crashes_the_decoder_twice_is_refused(video, tmp_path):
    guard = CrashingGuard()
    with pytest.raises(DecodeError, match=r"the decoder crashed \(SIGSEGV\)"):
        guard.inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))
    assert guard.num_crashes == 2
    assert guard.process_id is None


def test_a_video_that_never_ends_is_refused_in_time(video, tmp_path, monkeypatch):
    guard = VideoGuard(DecodeConfig(timeout_s=0.1))
    with pytest.raises(DecodeError):
        guard.inspect(str(tmp_path / "gone.mp4"), 0.0, None, str(tmp_path / "cut.mp4"))
    monkeypatch.setattr("mama_ray.data.video.guard._GRACE_S", 1)  # not before: a child on busy cores may answer late
    os.kill(guard.process_id, signal.SIGSTOP)
    with pytest.raises(DecodeError, match="did not end within"):
        guard.inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))
    assert guard.process_id is None
    guard.close()


def test_a_child_that_cannot_start_is_no_fault_of_the_video(video, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"the decoding process cannot start: exit status 1"):
        VideoGuard().inspect(video, 0.0, None, str(tmp_path / "cut.mp4"))


def test_no_room_for_the_cut_is_no_fault_of_the_video(guard, video, tmp_path):
    with pytest.raises(OSError, match="No such file or directory"):
        guard.inspect(video, 0.5, 1.5, str(tmp_path / "no_folder" / "cut.mp4"))
