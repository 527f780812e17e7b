"""A child that crashes or takes too much CPU costs a video; one that stands still or is killed tells of the machine."""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.settings import DecodeConfig
from tests.data.video.hostile_factory import make_costly_gif
from tests.data.video.video_factory import make_video

SIZE = {"width": 8, "height": 8}


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("mama_ray.data.video.child_watch.time.sleep", lambda _: None)


class DyingGuard(VideoGuard):
    """A guard whose child gets a signal in the middle of every video."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__()
        self._by, self._asked, self.num_deaths = by, None, 0

    def _started(self):
        child = super()._started()
        os.kill(child.pid, signal.SIGSTOP)  # it gets the request and cannot be done before the signal
        return child

    def _read_line(self, child, watch):
        if child is self._asked:
            self.num_deaths += 1
            os.kill(child.pid, self._by)
            os.kill(child.pid, signal.SIGCONT)
        self._asked = child
        return super()._read_line(child, watch)


def test_a_video_that_crashes_the_decoder_twice_is_refused():
    guard = DyingGuard(signal.SIGSEGV)
    with pytest.raises(DecodeError, match=r"the decoder crashed \(SIGSEGV\)"):
        guard.sampled_frames(make_video(), num_frames=2, size=SIZE)
    assert guard.num_deaths == 2
    assert guard.process_id is None


def test_a_child_that_is_killed_though_it_has_little_memory_is_no_fault_of_the_video(no_waiting):
    guard = DyingGuard(signal.SIGKILL)
    with pytest.raises(OSError, match=r"was killed 4 times \(SIGKILL\)") as told:
        guard.sampled_frames(make_video(), num_frames=2, size=SIZE)
    assert told.value.errno == errno.ENOMEM and guard.num_deaths == 4


def test_a_video_for_whose_memory_the_child_is_killed_stops_no_job(no_waiting, monkeypatch):
    monkeypatch.setattr("mama_ray.data.video.child_watch._HEAVY_BYTES", 1 << 20)  # which every child has
    guard = DyingGuard(signal.SIGKILL)
    with pytest.raises(DecodeError, match=r"the decoder crashed \(SIGKILL\)"):
        guard.sampled_frames(make_video(), num_frames=2, size=SIZE)
    assert guard.num_deaths == 2


class EndingGuard(VideoGuard):
    """A guard whose child ends with a status, some times, before it has answered."""

    def __init__(self, num_ends: int) -> None:
        super().__init__()
        self.num_left = num_ends

    def _started(self):
        child = super()._started()
        if self.num_left:
            self.num_left -= 1
            child.stdin.write(b"no request\n")
            child.stdin.flush()
        return child


def test_a_child_that_ends_with_a_status_is_asked_for_longer_than_one_that_crashes(no_waiting):
    guard = EndingGuard(3)
    assert guard.sampled_frames(make_video(), num_frames=2, size=SIZE).shape == (2, 8, 8, 3)
    guard = EndingGuard(9)
    with pytest.raises(DecodeError, match=r"the decoder crashed \(exit status 1\)"):
        guard.sampled_frames(make_video(), num_frames=2, size=SIZE)
    assert guard.num_left == 5


def started(config: DecodeConfig) -> VideoGuard:
    """A guard whose child has loaded all that it needs."""
    guard = VideoGuard(config.model_copy(update={"timeout_s": 60.0}))
    guard.sampled_frames(make_video(), num_frames=2, size=SIZE)
    guard._config = config
    return guard


def test_a_video_that_takes_a_native_call_too_much_cpu_is_refused(monkeypatch):
    monkeypatch.setattr("mama_ray.data.video.guard._GRACE_S", 0)
    guard = started(DecodeConfig(timeout_s=0.01))
    with pytest.raises(DecodeError, match="did not end within 0 s of CPU time"):
        guard.sampled_frames(make_costly_gif(400), num_frames=2, size=SIZE)
    assert guard.process_id is None


@pytest.mark.parametrize(("reader", "kind"), [("pyav", OSError), ("decord", DecodeError)])
def test_a_child_that_stands_still_is_no_fault_of_the_video_unless_decord_waits_for_ever(monkeypatch, reader, kind):
    monkeypatch.setattr("mama_ray.data.video.guard._GRACE_S", 1)
    guard = started(DecodeConfig(timeout_s=0.1, reader=reader))
    os.kill(guard.process_id, signal.SIGSTOP)
    with pytest.raises(kind, match="stood still for 1 s"):
        guard.sampled_frames(make_video(), num_frames=2, size=SIZE)
    assert guard.process_id is None


@contextlib.contextmanager
def hardly_running(process_id: int) -> Iterator[None]:
    """Let a process run for a tenth of the time."""
    is_over = threading.Event()

    def hold() -> None:
        while not is_over.wait(0.02):
            os.kill(process_id, signal.SIGSTOP)
            is_over.wait(0.18)
            os.kill(process_id, signal.SIGCONT)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_child_on_a_busy_machine_has_all_of_its_cpu_time(monkeypatch):
    monkeypatch.setattr("mama_ray.data.video.guard._GRACE_S", 0)
    guard = started(DecodeConfig(timeout_s=1.0))
    began = time.monotonic()
    with hardly_running(guard.process_id):
        frames = guard.sampled_frames(make_costly_gif(60, 1024, 1024), num_frames=60, size=SIZE)
    assert frames.shape == (60, 8, 8, 3)
    assert time.monotonic() - began > 2  # both of its limits
