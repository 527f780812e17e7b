"""Ten people narrate at once: nobody gets an error but the documented 429, and who came first is narrated first."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.video.video_factory import make_video
from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.orchestration.serving.narrate.narrations import no_narrator, take_away

pytestmark = [pytest.mark.slow, pytest.mark.promise]

NUM_CLIENTS, MAX_JOBS = 10, 5
_BUSY = (429, 503)
_PATIENCE_S = 300


def one_client(app: RunningApp, number: int, video: bytes) -> dict:
    """Send a video, again where the queue is full, follow it to its end and download it; returns what was answered."""
    statuses = []

    def ask(method: str, path: str, **more):
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            answer = app.request(method, path, timeout=_PATIENCE_S, **more)
            statuses.append(answer.status_code)
            if answer.status_code not in _BUSY:
                return answer
            assert "queue" in answer.text or "narrations wait" in answer.text or "busy" in answer.text
            assert time.monotonic() < deadline, "the queue never had room"
            time.sleep(0.5)

    told = ask("POST", f"/api/uploads?name={number}.mp4", content=video).json()
    address = f"/api/narrations/{told['id']}"
    events = ask("GET", f"{address}/events").text  # until the narration is over
    ask("GET", "/api/narrations")
    ask("GET", f"/narrate/{told['id']}")
    texts = [ask("GET", f"{address}/download/{kind}").text for kind in ("srt", "vtt", "jsonl", "csv")]
    state = ask("GET", address).json()
    return {"statuses": statuses, "events": events, "texts": texts, "state": state}


def test_ten_clients_at_once_are_all_served_in_the_order_in_which_they_came(tmp_path, small_shards):
    video = make_video(num_frames=16, fps=8)
    narrator = no_narrator(tmp_path)
    given = ["--shards", str(small_shards), "--narrator", narrator, "--max_jobs", str(MAX_JOBS)]
    with running_app(tmp_path / "data", *given) as app:
        take_away(narrator)
        with ThreadPoolExecutor(NUM_CLIENTS) as clients:
            done = list(clients.map(lambda number: one_client(app, number, video), range(NUM_CLIENTS)))
        log = app.log()
    statuses = [status for one in done for status in one["statuses"]]
    assert set(statuses) <= {200, 201, *_BUSY} and statuses.count(201) == NUM_CLIENTS
    assert 429 in statuses, "the queue was never full"
    for one in done:
        assert one["state"]["state"] == "failed" and "not the folder of a model" in one["state"]["reason"]
        assert one["events"].splitlines().count("event: end") == 1 and "event: state" in one["events"]
        assert one["texts"][1] == "WEBVTT\n"
    assert "Traceback" not in log
    check_order(tmp_path / "data/narrations")


def check_order(folder: Path) -> None:
    """The request of a job is written when it is a narration's turn."""
    came = [
        (json.loads((path / "record.json").read_text())["created_s"], (path / "request.yaml").stat().st_mtime_ns)
        for path in folder.iterdir()
    ]
    assert len(came) == NUM_CLIENTS
    turns = [turn for _, turn in sorted(came)]
    assert turns == sorted(turns)
