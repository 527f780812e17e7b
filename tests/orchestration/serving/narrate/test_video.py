"""The video of a narration for its player."""

import asyncio
import contextlib

import pytest
from fastapi import HTTPException

from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.serving.narrate.jobs import Narration
from mama_ray.orchestration.serving.narrate.record import NarrationFolder, Record, Settings, names_of
from mama_ray.orchestration.serving.narrate.video import NarratedVideos
from tests.data.video.video_factory import make_video


def test_no_video_is_taken_for_its_own_preview(tmp_path):
    folder = NarrationFolder(tmp_path)
    assert folder.preview.name not in {names_of(name)[1] for name in ("preview.mp4", "preview.h264.mp4")}


def test_a_preview_that_found_no_room_is_made_when_there_is_some(small_disk):
    folder = NarrationFolder(small_disk("64k"))
    record = Record(narration_id="0" * 16, name="a.avi", file_name="a.avi", created_s=0.0, num_bytes=1,
                    duration_s=1.0, codec="mpeg4", settings=Settings())  # fmt: skip
    (folder.path / "a.avi").write_bytes(make_video(num_frames=8, fps=8))
    filler = folder.path / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(512)):
            pass
    narration, videos = Narration(folder, record), NarratedVideos(DecodeConfig())

    async def look() -> str | None:
        with pytest.raises(HTTPException, match="no room"):
            await videos.answer(narration)
        filler.unlink()
        return (await videos.answer(narration)).media_type

    assert asyncio.run(look()) == "video/mp4"
    assert folder.preview.stat().st_size > 0
