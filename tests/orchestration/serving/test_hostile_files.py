"""Files that decoders choke on: each is answered with a reason, and the server lives on."""

import os

import httpx
import psutil
import pytest

from tests.data.video.video_factory import make_video
from tests.orchestration.serving.app_process import RunningApp
from tests.processes import descendants, title

pytestmark = [pytest.mark.slow, pytest.mark.promise]  # processes of its own for each case


def hostile_files() -> dict[str, bytes]:
    whole = make_video(num_frames=8, width=64, height=48, fps=8)
    return {
        "nothing": b"",
        "a page": b"<!doctype html><script>alert(1)</script>" * 50,
        "zeros": bytes(4096),
        "cut off": whole[: len(whole) // 2],
        "another beginning": b"\0" * 16 + whole[16:],
        "noise in the middle": whole[:200] + os.urandom(400) + whole[600:],
        "a size that is a lie": whole[:4] + b"\xff\xff\xff\xff" + whole[8:],
        "a playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n",
        "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "a picture of lines": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }


def forget_posters(app: RunningApp) -> None:
    """Take the pictures away that were made before: the next ones have to be decoded."""
    for path in (app.log_file.parent / "previews").glob("*.jpg"):
        path.unlink()


def decoders(app: RunningApp) -> list[psutil.Process]:
    return [process for process in descendants(app.process.pid) if "mama_ray.data.video.inspection" in title(process)]


@pytest.mark.parametrize("name", hostile_files())
def test_a_hostile_file_is_answered_with_a_reason(searching_app, name):
    answer = searching_app.post("/api/search/example", content=hostile_files()[name])
    assert answer.status_code in (200, 400)  # a decoder may make something of some
    assert answer.status_code == 200 or answer.json()["detail"]
    assert searching_app.get("/").status_code == 200


def test_odd_files_of_the_field_are_answered(searching_app, shared):
    found = sorted((shared / "data/cases/videos").iterdir())
    assert found
    for path in found:
        answer = searching_app.post("/api/search/example", content=path.read_bytes())
        assert answer.status_code == 200 or answer.json()["detail"], path.name


def test_a_decoding_process_that_is_killed_costs_no_answer(searching_app):
    forget_posters(searching_app)
    clips = [f"/api/clips/simple-0-train-{number:06d}/poster" for number in range(4)]
    assert searching_app.get(clips[0]).status_code == 200
    killed = decoders(searching_app)
    assert killed
    for process in killed:
        process.kill()
    assert [searching_app.get(clip).status_code for clip in clips[1:]] == [200, 200, 200]
    assert searching_app.process.poll() is None


def test_clips_are_decoded_by_another_process_than_the_server(searching_app):
    """While that process is held, there is no picture; once it goes on, there is."""
    forget_posters(searching_app)
    assert searching_app.get("/api/clips/simple-0-train-000005/poster").status_code == 200
    held = decoders(searching_app)
    assert held
    try:
        for process in held:
            process.suspend()
        with pytest.raises(httpx.ReadTimeout):
            searching_app.get("/api/clips/simple-0-train-000006/poster", timeout=2)
        assert searching_app.get("/").status_code == 200
    finally:
        for process in held:
            process.resume()
    assert searching_app.get("/api/clips/simple-0-train-000006/poster").status_code == 200


def test_nothing_of_an_upload_stays(searching_app):
    kept = [path for path in (searching_app.log_file.parent / "examples").rglob("*") if path.is_file()]
    assert not [path for path in kept if path.suffix != ".npy"]
