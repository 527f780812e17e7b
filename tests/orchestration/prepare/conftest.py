"""A small video, and a folder of videos to prepare."""

from pathlib import Path

import pytest

from tests.data.video.video_factory import make_video
from tests.orchestration.prepare.in_process import NAMES


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return make_video(num_frames=2, width=32, height=32, fps=4)


@pytest.fixture
def folder(tmp_path, mp4) -> Path:
    (tmp_path / "videos").mkdir()
    for name in NAMES:
        (tmp_path / f"videos/{name}.mp4").write_bytes(mp4)
    return tmp_path
