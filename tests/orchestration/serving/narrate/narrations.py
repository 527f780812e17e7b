"""Narrations for tests: an application in this process over a corpus, and videos that are sent to it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

from fastapi.testclient import TestClient

from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.serving.app import create_app
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.narrate.jobs import Narration, NarrationQueue
from mama_ray.orchestration.serving.narrate.record import Record, Settings, keep_upload, new_id, partial_upload
from mama_ray.orchestration.serving.opening import open_state
from tests.data.video.video_factory import make_video

_CONFIG = "config.json"


def no_narrator(folder: Path) -> str:
    """Make a folder that the app takes for a narrator when it opens.

    Once it is taken away (`take_away`), a job with it starts as every job does, and soon ends with a reason.
    """
    (folder / "no-model").mkdir(exist_ok=True)
    (folder / "no-model" / _CONFIG).write_text("{}")
    return str(folder / "no-model")


def take_away(narrator: str) -> None:
    """Leave nothing of what `no_narrator` has made but an empty folder, as somebody who cleans up."""
    (Path(narrator) / _CONFIG).unlink()


@contextlib.contextmanager
def client_of(shards: Path, data: Path, **settings) -> Iterator[TestClient]:
    """Give a client of an application that lives as long as the block."""
    job = AppJob(shards=str(shards), data=str(data), **settings)
    with TestClient(create_app(open_state(job)), base_url="http://127.0.0.1") as client:
        yield client


def send(client: TestClient, name: str = "a.mp4", content: bytes | None = None, **asked):
    """Send a video of two seconds, or what is given."""
    content = make_video(num_frames=16, fps=8) if content is None else content
    return client.post("/api/uploads", params={"name": name, **asked}, content=content)


def wait_for(found: Callable[[], bool], *, seconds: float = 120) -> None:
    """Wait until something is the case; fails where it is not in time."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


async def comes_about(found: Callable[[], bool], *, seconds: float = 120) -> None:
    """Wait as `wait_for` does, and let others work meanwhile."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.05)


def queue_at(folder: Path, *, at_once: int = 1, max_waiting: int = 4) -> NarrationQueue:
    """Make a queue whose jobs fail soon."""
    narrator = no_narrator(folder)
    take_away(narrator)
    job = NarrateJob(model=narrator)
    return NarrationQueue(folder / "narrations", job, at_once=at_once, max_waiting=max_waiting)


def add(queue: NarrationQueue, number: float = 0) -> Narration:
    """Put a video of two seconds into the queue."""
    with queue.place_reserved():
        name = new_id()
        upload = partial_upload(queue.folder, name)
        upload.write_bytes(make_video(num_frames=16, fps=8))
        record = Record(narration_id=name, name="a.mp4", file_name="a.mp4", created_s=float(number), num_bytes=1,
                        duration_s=2.0, settings=Settings())  # fmt: skip
        return queue.add(keep_upload(queue.folder, upload, record), record)


def during(queue: NarrationQueue, work: Coroutine) -> None:
    """Do something while the queue is at work."""

    async def whole() -> None:
        await queue.start()
        try:
            await work
        finally:
            await queue.close()

    asyncio.run(whole())
