"""The app's other ways to search, from its start to Ctrl-C: approximate, and by replicas on Ray Serve."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.orchestration.serving.browsers import wait_until
from tests.processes import descendants, is_gone, title

ASKED = [
    {"plus": ["a red star"], "limit": 10},
    {"plus": ["a red star"], "minus": ["small"], "mixture": 0.5, "offset": 5, "limit": 5},
    {"like": ["simple-0-train-000001"], "filters": {"splits": ["train", "meta"]}, "limit": 20},
]
ADDRESS = "/?q=a+red+star&minus=small&mixture=0.5&splits=train"
ON_SERVE = ["--cluster.num_replicas", "2", "--cluster.num_towers", "1", "--cluster.share_cpus", "0.2"]


def answers(app: RunningApp) -> list[tuple[list[tuple[str, float]], int]]:
    """Return clips with similarities, and how many there are, for each search."""
    found = [app.post("/api/search", json=asked, timeout=120).json() for asked in ASKED]
    return [([(hit["clip_id"], hit["similarity"]) for hit in one["hits"]], one["total"]) for one in found]


@contextmanager
def app_that_searches(folder: Path, shards: Path, model: Path, index: Path, *more: str) -> Iterator[RunningApp]:
    given = ["--shards", str(shards), "--run", str(model), "--index", str(index)]
    with running_app(folder, *given, *more) as app:
        yield app


def stop_as_a_terminal_does(app: RunningApp) -> list[psutil.Process]:
    """Press Ctrl-C, which reaches every process of the terminal's group; returns those that were below the app."""
    below = descendants(app.process.pid)
    group = os.getpgid(app.process.pid)
    foreground = [one.pid for one in below if _group_of(one) == group]
    for pid in [app.process.pid, *foreground]:
        os.kill(pid, signal.SIGINT)
    assert app.process.wait(60) == 130, app.log()[-3000:]
    return below


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def all_gone(processes: list[psutil.Process]) -> bool:
    """Tell whether all end within some seconds, as Ray's do, which are told to by their node."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(map(is_gone, processes)):
        time.sleep(0.1)
    return all(map(is_gone, processes))


def look_at(app: RunningApp, browser, searching_app: RunningApp) -> None:
    """Compare an app with the one that searches exactly in its own process, by the interface and on the page."""
    assert answers(app) == answers(searching_app)
    shown = []
    for one in (app, searching_app):
        with browser.page(one.url + ADDRESS) as page:
            wait_until(page, "document.querySelectorAll('.card .similarity').length > 0")
            shown.append(page.locator(".card").evaluate_all("(all) => all.map((one) => one.dataset.clip)"))
    assert len(shown[0]) > 5
    assert shown[0] == shown[1]


@pytest.fixture
def given(tmp_path, small_shards, small_model, small_index):
    return tmp_path, small_shards, small_model, small_index


def test_approximate_search_tells_its_recall_and_ends_with_ctrl_c(given, browser, searching_app):
    with app_that_searches(*given, "--search", "approximate") as app:
        look_at(app, browser, searching_app)
        recall = re.search(r"recall@10 against exact search is ([\d.]+)", app.log())
        assert recall is not None and float(recall[1]) >= 0.95
        below = stop_as_a_terminal_does(app)
        assert "stopped by Ctrl-C" in app.log().splitlines()[-1]
        assert below and all_gone(below)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_replicas_on_serve_find_the_same_and_end_with_ctrl_c(given, browser, searching_app):
    with app_that_searches(*given, "--search", "approximate", *ON_SERVE) as app:
        look_at(app, browser, searching_app)
        assert len(re.findall(r"recall@10 against exact search is ([\d.]+)", app.log())) >= 1
        assert " CALL " not in app.log(), "each query is a line of the log"
        below = stop_as_a_terminal_does(app)
        assert "stopped by Ctrl-C" in app.log().splitlines()[-1]
        assert all_gone(below), [title(one) for one in below if not is_gone(one)]
