"""Files that decoders choke on: each is answered with a reason, and the server lives on."""

import os

import psutil
import pytest

from tests.data.video.video_factory import make_video
from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.processes import descendants, title


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


def decoders(app: RunningApp) -> list[psutil.Process]:
    return [process for process in descendants(app.process.pid) if "mama_ray.data.video.inspection" in title(process)]


@pytest.fixture(scope="module")
def taking_app(tmp_path_factory, small_shards, small_model, small_index):
    given = ["--shards", str(small_shards), "--run", str(small_model), "--index", str(small_index)]
    with running_app(tmp_path_factory.mktemp("taking-app"), *given) as app:
        yield app


@pytest.mark.parametrize("name", hostile_files())
def test_a_hostile_file_is_answered_with_a_reason(taking_app, name):
    answer = taking_app.post("/api/search/example", content=hostile_files()[name])
    assert answer.status_code in (200, 400)  # a decoder may make something of some
    assert answer.status_code == 200 or answer.json()["detail"]
    assert taking_app.get("/").status_code == 200


def test_odd_files_of_the_field_are_answered(taking_app, shared):
    found = sorted((shared / "data/cases/videos").iterdir())
    assert found
    for path in found:
        answer = taking_app.post("/api/search/example", content=path.read_bytes())
        assert answer.status_code == 200 or answer.json()["detail"], path.name


def test_a_decoding_process_that_is_killed_costs_no_answer(taking_app, small_shards):
    clips = [f"/api/clips/simple-0-train-{number:06d}/poster" for number in range(4)]
    assert taking_app.get(clips[0]).status_code == 200
    for process in decoders(taking_app):
        process.kill()
    assert [taking_app.get(clip).status_code for clip in clips[1:]] == [200, 200, 200]
    assert taking_app.process.poll() is None


def test_the_server_itself_decodes_nothing(taking_app):
    """The libraries that decode are not even loaded where requests are answered."""
    assert taking_app.get("/api/clips/simple-0-train-000005/poster").status_code == 200
    loaded = [one.path for one in psutil.Process(taking_app.process.pid).memory_maps()]
    assert not [path for path in loaded if "libavcodec" in path or "decord" in path]
    assert any("libavcodec" in one.path for child in decoders(taking_app) for one in child.memory_maps())


def test_nothing_of_an_upload_stays(taking_app):
    kept = [path for path in (taking_app.log_file.parent / "examples").rglob("*") if path.is_file()]
    assert not [path for path in kept if path.suffix != ".npy"]
