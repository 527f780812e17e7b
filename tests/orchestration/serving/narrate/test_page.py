"""A person narrates a video in a real browser: live, through a reload, through a killed app, edited and downloaded."""

import csv
import io
import json
import time
from pathlib import Path

import psutil
import pytest
import srt
import webvtt

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.film import write_film
from tests.orchestration.serving.app_process import RunningApp, start_app
from tests.orchestration.serving.narrate.narrations import wait_for
from tests.processes import is_gone, title

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

NUM_WINDOWS, FPS = 240, 8
_PATIENCE_S = 240  # of the start of an engine where others keep the cores busy
HOSTILE = "<script>alert(1)</script> --> =CMD()"


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    corpus = CorpusConfig(num_train=4, num_val=NUM_WINDOWS, num_test=4)
    return write_film(tmp_path_factory.mktemp("film"), corpus, [("val", number) for number in range(NUM_WINDOWS)])


def upload(page, film: Path) -> str:
    page.set_input_files("#file", film)
    page.select_option("#num_captions", "2")
    page.click("#send")
    page.wait_for_url("**/narrate/*")
    return page.url


def narrator_of(app: RunningApp) -> psutil.Process:
    (found,) = (one for one in psutil.Process(app.process.pid).children() if "narrate.child" in title(one))
    return found


def num_rows(page) -> int:
    return page.locator("#entries li").count()


def until(page, expression: str) -> None:
    """Wait for what a script sees; the page's own policy forbids the browser's driver to look for itself."""
    deadline = time.monotonic() + _PATIENCE_S
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"{expression}: {page.inner_text('#state')}"
        page.wait_for_timeout(50)


def until_at(page, seconds: int) -> None:
    until(page, f"Math.abs(document.getElementById('video').currentTime - {seconds}) < 1 / {FPS}")


def wait_for_rows(page, number: int) -> None:
    until(page, f"document.querySelectorAll('#entries li').length >= {number}")


def wait_until_done(page) -> None:
    until(page, "/^[0-9]+ windows are narrated[.]$/.test(document.getElementById('state').textContent)")


def download(page, kind: str) -> str:
    with page.expect_download() as saved:
        page.click(f".downloads a:text-is('{kind.upper()}')")
    assert saved.value.suggested_filename == f"film.{kind}"
    return Path(saved.value.path()).read_text()


@pytest.mark.promise
def test_a_video_is_narrated_live_through_a_reload_and_a_killed_app(film, small_shards, browser, tmp_path):
    app = start_app(tmp_path / "data", "--shards", str(small_shards), "--narrator", "embedded")
    again: RunningApp | None = None
    try:
        with browser.page(f"{app.url}/narrate") as page:
            address = upload(page, film)
            wait_for_rows(page, 1)
            assert page.locator("#cancel").is_visible(), "windows are seen while the narration runs"
            child = narrator_of(app)
            app.process.kill()  # the app alone, as one that runs out of memory
            wait_for(lambda: is_gone(child), seconds=30)
            again = start_app(tmp_path / "data", "--shards", str(small_shards), "--narrator", "embedded", port=app.port)
            committed = num_rows(page)
            page.reload()
            wait_for_rows(page, committed)
            wait_until_done(page)
            assert num_rows(page) == NUM_WINDOWS
            look_closer(page)
            page.goto(address)
            wait_for_rows(page, NUM_WINDOWS)
            edited = page.locator("#entries li", has_text="edited")
            assert edited.count() == 1 and HOSTILE in edited.inner_text()
            check_downloads(page)
            browser.troubles.clear()  # the browser tells that the killed app did not answer
    finally:
        app.stop()
        if again is not None:
            again.stop()


def look_closer(page) -> None:
    """Go to a window by a click and by keys, and write one's own text for it."""
    row = page.locator("#entries li").nth(100)
    row.locator("button").click()
    until_at(page, 100)
    assert row.get_attribute("class") == "current"
    assert page.inner_text("#now-text") in row.inner_text()
    assert page.locator("#samples li").count() >= 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    until_at(page, 101)
    page.click("#edit")
    page.keyboard.press("Control+A")
    page.keyboard.type(HOSTILE)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#entries li.current .badge.human")


def check_downloads(page) -> None:
    cues = list(srt.parse(download(page, "srt")))
    assert cues[-1].end.total_seconds() == NUM_WINDOWS and not any("<" in cue.content for cue in cues)
    assert len(list(webvtt.from_buffer(io.StringIO(download(page, "vtt"))))) == len(cues)
    lines = [json.loads(line) for line in download(page, "jsonl").splitlines()]
    assert len(lines) == NUM_WINDOWS and lines[101]["edited"] == lines[101]["text"] == HOSTILE
    assert lines[101]["raw"] not in (None, HOSTILE)
    rows = list(csv.DictReader(io.StringIO(download(page, "csv").removeprefix("\ufeff"))))
    assert [row["raw"] for row in rows] == [line["raw"] or "" for line in lines]


def test_a_narration_is_cancelled_and_goes_on(film, small_shards, browser, tmp_path):
    app = start_app(tmp_path / "data", "--shards", str(small_shards), "--narrator", "embedded")
    try:
        with browser.page(f"{app.url}/narrate") as page:
            upload(page, film)
            page.wait_for_selector("#cancel:visible")
            child = narrator_of(app)
            below = [child, *child.children(recursive=True)]
            page.click("#cancel")
            page.wait_for_selector("#retry:visible", timeout=1000 * _PATIENCE_S)
            assert "Cancelled" in page.inner_text("#state")
            wait_for(lambda: all(is_gone(process) for process in below), seconds=15)
            page.click("#retry")
            wait_until_done(page)
            assert num_rows(page) == NUM_WINDOWS
    finally:
        app.stop()
