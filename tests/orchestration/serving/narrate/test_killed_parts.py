"""Parts of a narration are killed while it runs: it goes on or fails alone, and the next one is narrated."""

import time
from pathlib import Path

import psutil
import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.film import write_film
from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.processes import descendants, is_gone, title

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow, pytest.mark.promise]

LONG, SHORT = 240, 6
_PATIENCE_S = 280  # of the start of an engine where others keep the cores busy


def film(folder: Path, num_windows: int) -> bytes:
    corpus = CorpusConfig(num_train=4, num_val=LONG, num_test=4)
    return write_film(folder, corpus, [("val", number) for number in range(num_windows)]).read_bytes()


def told(app: RunningApp, name: str) -> dict:
    return app.get(f"/api/narrations/{name}").json()


def wait_for_windows(app: RunningApp, name: str, number: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while (now := told(app, name))["num_done"] < number:
        assert now["state"] in ("queued", "running"), now["reason"]
        assert time.monotonic() < deadline, "no window was narrated in time"
        time.sleep(0.2)


def wait_until_over(app: RunningApp, name: str) -> dict:
    deadline = time.monotonic() + _PATIENCE_S
    while (now := told(app, name))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, "the narration never ended"
        time.sleep(0.2)
    return now


def memory_of(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def kill_decoders(app: RunningApp) -> None:
    found = [one for one in descendants(app.process.pid) if "mama_ray.data.video.inspection" in title(one)]
    assert found
    for process in found:
        process.kill()


def kill_engine(app: RunningApp) -> None:
    """Kill the largest process below the narrator: the one that holds the model."""
    (narrator,) = (one for one in psutil.Process(app.process.pid).children() if "narrate.child" in title(one))
    engine = max(descendants(narrator.pid), key=memory_of)
    assert "ray::" in title(engine) or "EngineCore" in title(engine), title(engine)
    engine.kill()
    assert is_gone(engine) or engine.wait(10) is None


def test_a_killed_decoder_costs_nothing_and_a_killed_engine_at_most_its_own_narration(tmp_path, small_shards):
    with running_app(tmp_path / "data", "--shards", str(small_shards), "--narrator", "embedded") as app:
        long = app.post("/api/uploads?name=long.mp4", content=film(tmp_path / "long", LONG)).json()["id"]
        short = app.post("/api/uploads?name=short.mp4", content=film(tmp_path / "short", SHORT)).json()["id"]
        wait_for_windows(app, long, 4)
        kill_decoders(app)
        wait_for_windows(app, long, told(app, long)["num_done"] + 8)
        kill_engine(app)
        assert app.get("/narrate").status_code == 200
        first = wait_until_over(app, long)
        assert first["state"] == "done" or (first["state"] == "failed" and "\n" not in first["reason"])
        second = wait_until_over(app, short)
        assert (second["state"], second["num_done"]) == ("done", SHORT)
        assert all(window["error"] is None and window["texts"] for window in second["windows"])
        assert app.process.poll() is None
