"""The page of a narration that is over, in a real browser: what it does where an answer fails."""

import json
from collections.abc import Iterator

import pytest

from mama_ray.orchestration.serving.narrate.record import Record, Settings
from tests.data.video.video_factory import make_video
from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.orchestration.serving.browsers import wait_until
from tests.orchestration.serving.narrate.narrations import no_narrator, take_away

ID, DAMAGED = "0" * 16, "1" * 16
BUSY = 503


@pytest.fixture(scope="module")
def app(tmp_path_factory, small_shards) -> Iterator[RunningApp]:
    """The app with narrations that failed earlier, of one of which a person's texts are damaged."""
    data = tmp_path_factory.mktemp("narrated")
    for name, file_name, codec in ((ID, "a.mp4", "h264"), (DAMAGED, "a.avi", "mpeg4")):
        record = Record(
            narration_id=name, name=file_name, file_name=file_name, created_s=0.0, num_bytes=1, duration_s=2.0,
            codec=codec, settings=Settings(), state="failed", reason="no model",
        )  # fmt: skip
        folder = data / "narrations" / name
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record.model_dump_json())
        (folder / file_name).write_bytes(make_video(num_frames=16, fps=8))
    (data / "narrations" / DAMAGED / "edits.json").write_text("{")
    (data / "narrations" / DAMAGED / "a.avi").write_bytes(b"no video any more")
    narrator = no_narrator(tmp_path_factory.mktemp("model"))
    with running_app(data, "--shards", str(small_shards), "--narrator", narrator) as found:
        take_away(narrator)
        yield found


def test_a_page_comes_back_after_an_app_that_had_too_many_clients(app, browser):
    refused = []

    def busy(route) -> None:
        refused.append(route.request.url)
        if len(refused) <= 2:
            route.fulfill(status=BUSY, headers={"retry-after": "2"}, body="busy")
        else:
            route.continue_()

    with browser.page(f"{app.url}/docs") as page:
        page.route("**/events", busy)
        page.goto(f"{app.url}/narrate/{ID}")
        wait_until(page, "document.getElementById('state').textContent.startsWith('Failed')")
        page.wait_for_timeout(2500)
        assert len(refused) == 3, "it is over: nobody asks again"
        browser.troubles.clear()  # the browser tells of each 503


def test_a_video_that_somebody_took_away_is_told(app, browser):
    path = app.log_file.parent / "narrations" / ID / "a.mp4"
    path.rename(path.with_suffix(".away"))
    try:
        assert app.get(f"/api/narrations/{ID}/video").status_code == 404
        with browser.page(f"{app.url}/narrate/{ID}") as page:
            page.wait_for_selector("#unplayable:has-text('The video is gone')")
            browser.troubles.clear()  # of the 404
    finally:
        path.with_suffix(".away").rename(path)
    assert "Traceback" not in app.log()


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [("new.mp4", "libx265", "mp4"), ("old.avi", "mpeg4", "avi"), ("a.mkv", "mpeg2video", "matroska")],
)
def test_a_video_that_browsers_do_not_play_is_shown_as_a_preview(app, browser, tmp_path, name, codec, container):
    video = tmp_path / name
    video.write_bytes(make_video(num_frames=24, fps=8, width=96, height=64, codec=codec, container=container))
    with browser.page(f"{app.url}/narrate") as page:
        page.set_input_files("#file", video)
        page.click("#send")
        page.wait_for_url("**/narrate/*")
        wait_until(page, "document.getElementById('video').readyState >= 2")
        assert page.evaluate(
            "(({videoWidth, videoHeight}) => [videoWidth, videoHeight])(document.getElementById('video'))"
        ) == [96, 64]
        assert not page.locator("#unplayable").is_visible()


def test_texts_that_cannot_be_read_are_told_and_so_is_why_a_video_is_not_shown(app, browser):
    with browser.page(f"{app.url}/narrate/{DAMAGED}") as page:
        page.wait_for_selector("#notice:visible")
        assert "edits.json" in page.inner_text("#notice")
        page.wait_for_selector("#unplayable:has-text('The video cannot be shown')")
        browser.troubles.clear()  # of the video's 422
    assert json.loads(app.get(f"/api/narrations/{DAMAGED}").text)["notice"]


def test_a_poster_that_found_the_app_busy_is_asked_for_again_and_one_without_a_picture_is_not(app, browser):
    asked: dict[str, int] = {}

    def busy(route) -> None:
        clip = route.request.url.split("/")[5]
        asked[clip] = asked.get(clip, 0) + 1
        if clip.endswith("000001") and asked[clip] <= 2:
            route.fulfill(status=BUSY, body="busy")
        elif clip.endswith("000002"):
            route.fulfill(status=422, body="no picture")
        else:
            route.continue_()

    first, second = (f"[data-clip=simple-0-train-00000{number}]" for number in (1, 2))
    with browser.page(f"{app.url}/docs") as page:
        page.route("**/poster*", busy)
        page.goto(app.url)
        page.wait_for_selector(f"{second} .no-picture")
        wait_until(page, f"document.querySelector('{first} img').naturalWidth > 0")
        assert page.locator(f"{first} .no-picture").count() == 0
        assert asked["simple-0-train-000002"] == 2  # as an image, and to see why not
        browser.troubles.clear()  # the browser tells of each 503 and 422


def test_a_text_kept_in_one_tab_shows_in_the_other_and_so_does_a_deletion(app, browser):
    copied = app.log_file.parent / "narrations" / ID
    record = Record.model_validate_json((copied / "record.json").read_text())
    window = {"start_s": 0.0, "end_s": 1.0, "texts": [], "not_shown": [], "error": None, "edited": None}
    told = json.dumps([{**window, "clip_id": record.windows()[0].clip_id}])
    with browser.page(f"{app.url}/docs") as page:
        page.context.route(
            "**/events",
            lambda route: route.fulfill(content_type="text/event-stream", body=f"event: windows\ndata: {told}\n\n"),
        )
        page.goto(f"{app.url}/narrate/{ID}")
        other = page.context.new_page()
        other.goto(f"{app.url}/narrate/{ID}")
        for one in (page, other):
            one.locator("#entries button").click()
            one.click("#edit")
        page.fill("#text", "of the first <b>tab</b>")
        page.keyboard.press("Control+Enter")
        other.wait_for_selector("#entries li:has-text('of the first <b>tab</b>')")
        assert "changed in another window" in other.inner_text("#toast")
        assert other.locator("#editor").is_visible(), "what is being written there stays"
        other.fill("#text", "half written")
        asked = []
        other.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
        other.close(run_before_unload=True)
        wait_until(page, "true")
        page.wait_for_timeout(500)
        assert asked == ["beforeunload"] and not other.is_closed()
        page.on("dialog", lambda dialog: dialog.accept())
        page.route(f"**/api/narrations/{ID}", lambda route: route.fulfill(status=204))
        page.click("#delete")
        page.wait_for_url("**/narrate")
        other.wait_for_selector("#state:has-text('deleted in another window')")
        assert not other.locator("#delete").is_visible() and not other.locator("#editor").is_visible()
        other.close()
