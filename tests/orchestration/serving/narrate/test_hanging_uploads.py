"""Videos that hold the decoding process up: they keep each other waiting and nobody else."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.data.video.video_factory import make_video
from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.orchestration.serving.narrate.narrations import no_narrator, take_away, wait_for
from tests.processes import descendants, title

pytestmark = [pytest.mark.slow, pytest.mark.promise]

CLIP = "simple-0-val-000003"
NUM_UPLOADS = 8
_LOOKED_AT = 2
_ENDS_WITHIN_S = 30


@pytest.fixture
def app(tmp_path, small_shards):
    narrator = no_narrator(tmp_path)
    with running_app(tmp_path / "data", "--shards", str(small_shards), "--narrator", narrator) as found:
        take_away(narrator)
        yield found


def decoders(app: RunningApp) -> list[psutil.Process]:
    return [one for one in descendants(app.process.pid) if "mama_ray.data.video.inspection" in title(one)]


@contextlib.contextmanager
def every_decoder_hangs(app: RunningApp):
    """Hold each decoding process of the app from now on, also those that it starts."""
    is_over = threading.Event()

    def hold() -> None:
        while not is_over.wait(0.02):
            for process in decoders(app):
                with contextlib.suppress(psutil.Error):
                    process.suspend()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        for process in decoders(app):
            with contextlib.suppress(psutil.Error):
                process.resume()


@contextlib.contextmanager
def uploads_that_hang(app: RunningApp):
    """Send videos, of which as many are looked at as ever are; gives what will be answered."""
    video = make_video(num_frames=16, fps=8)
    with ThreadPoolExecutor(NUM_UPLOADS) as people:
        with every_decoder_hangs(app):
            sent = [
                people.submit(app.post, f"/api/uploads?name={one}.mp4", content=video, timeout=180)
                for one in range(NUM_UPLOADS)
            ]
            folder = app.log_file.parent / "narrations"
            wait_for(lambda: len(list(folder.glob("upload-*.part"))) == NUM_UPLOADS)
            wait_for(lambda: len(decoders(app)) >= _LOOKED_AT)
            yield sent
        for one in sent:
            with contextlib.suppress(httpx.TransportError):
                one.result()


def test_clips_and_pages_are_answered_while_uploads_hang_and_these_have_their_turn_afterwards(app):
    assert app.get(f"/api/clips/{CLIP}/poster").status_code == 200  # made before; it is read from the disk below
    with uploads_that_hang(app) as sent:
        paths = ("/", "/narrate", "/api/narrations", f"/api/clips/{CLIP}", f"/api/clips/{CLIP}/video",
                 f"/api/clips/{CLIP}/poster")  # fmt: skip
        assert [app.get(path, timeout=30).status_code for path in paths] == [200] * len(paths)
        assert len(decoders(app)) <= _LOOKED_AT + 1  # the poster's own
        assert not any(one.done() for one in sent)
    assert [one.result().status_code for one in sent] == [201] * NUM_UPLOADS


def test_an_app_that_is_stopped_does_not_wait_for_uploads_that_hang(app):
    with uploads_that_hang(app):
        app.process.terminate()
        app.process.wait(_ENDS_WITHIN_S)
    assert not list((app.log_file.parent / "narrations").glob("*/record.json"))
