"""A disk that fails under a video is no fact about the video, wherever it fails: what reads it is told of the disk."""

import errno
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from mama_ray.data.video.container import DecodeError, open_video
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.guarded_windows import WindowDecoding
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.window_reader import FramesOfWindow, WindowRequest

SOURCE = Path(__file__).with_name("failing_reads.c")
SIZE = {"short_side": 16}
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


class Disk:
    """The disk of one video, for processes that are started from now on."""

    def __init__(self, settings: Path, video: Path) -> None:
        self._settings, self.video = settings, video

    def breaks(self, number: int, share: float) -> None:
        """Reads fail from that part of the video on."""
        self._settings.write_text(f"{number} {int(share * self.video.stat().st_size)} {self.video.name}\n")

    def is_mended(self) -> None:
        self._settings.unlink()


def write_noise(path: Path) -> None:
    """Ten seconds of 8 frames, none of which is small, with the header before them."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as output:
        stream = output.add_stream("libx264", rate=8, options={"g": "8", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(80):
            frame = VideoFrame.from_ndarray(rng.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("library") / "failing_reads.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, SOURCE], check=True)
    return path


@pytest.fixture
def disk(request, library, tmp_path, monkeypatch) -> Disk:
    video = tmp_path / f"lies_there.{getattr(request, 'param', 'mp4')}"
    write_noise(video)
    assert video.stat().st_size > 1 << 18  # more than is read at once
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAILING_READS", str(tmp_path / "failing"))
    return Disk(tmp_path / "failing", video)


def windows_of(disk: Disk) -> list:
    windows = [(float(second), second + 1.0) for second in range(10)]
    # A config of its own, so that its child is started here.
    config = DecodeConfig(timeout_s=60 + hash(disk.video) % 1000)
    return list(WindowDecoding(str(disk.video), windows, WindowRequest(4, "spread", SIZE), config))


@pytest.mark.parametrize(
    ("disk", "number", "share"),
    [("mp4", errno.EIO, 0.5), ("mkv", errno.EIO, 0.5), ("mp4", errno.ESTALE, 0.0)],
    indirect=["disk"],
)
def test_a_read_that_fails_is_not_told_as_windows_that_cannot_be_decoded(disk, number, share):
    disk.breaks(number, share)
    with pytest.raises(OSError, match=disk.video.name) as told:
        windows_of(disk)
    assert told.value.errno == number
    disk.is_mended()
    assert [type(one) for one in windows_of(disk)] == [FramesOfWindow] * 10


def test_the_child_that_was_told_of_a_broken_disk_reads_the_video_when_it_is_back(disk, tmp_path):
    guard = VideoGuard(DecodeConfig())
    cut = str(tmp_path / "cut.mp4")
    try:
        guard.inspect(str(disk.video), 0.0, 2.0, cut)  # which leaves it open for the next cut
        child = guard.process_id
        disk.breaks(errno.EIO, 0.5)
        with pytest.raises(OSError, match=disk.video.name):
            guard.inspect(str(disk.video), 7.0, 9.0, cut)
        disk.is_mended()
        assert guard.inspect(str(disk.video), 7.0, 9.0, cut)["num_frames"] == 16
        assert guard.process_id == child
    finally:
        guard.close()


def test_what_is_no_file_is_a_fact(tmp_path):
    for name in ("none.mp4", "none.mp4/deeper.mp4", "."):
        (tmp_path / "none.mp4").touch() if "/" in name else None
        with pytest.raises(DecodeError, match="no such file"), open_video(tmp_path / name, DecodeConfig()):
            pass
