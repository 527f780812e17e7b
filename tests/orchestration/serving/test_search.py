"""Searching in a real browser: what the page shows is what the features say."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.towers import Towers
from tests.orchestration.serving.app_process import raw
from tests.orchestration.serving.browsers import wait_until
from tests.orchestration.serving.conftest import HOSTILE_CAPTIONS

WORDS = "red circle moving left"


@pytest.fixture(scope="module")
def table(small_index) -> EmbeddingTable:
    return EmbeddingTable.open(str(small_index))


@pytest.fixture(scope="module")
def towers(small_model) -> Towers:
    return Towers.load(str(small_model), num_processes=1)


def best(table: EmbeddingTable, direction: np.ndarray, count: int, allowed=lambda clip_id: True) -> list[str]:
    """Return the ids nearest to a direction, by brute force."""
    similarity = table.video.astype(np.float64) @ direction.astype(np.float64)
    ids = table.clip_ids.to_pylist()
    order = sorted((row for row in range(len(ids)) if allowed(ids[row])), key=lambda row: (-similarity[row], ids[row]))
    return [ids[row] for row in order[:count]]


def shown(page, count: int = 5) -> list[str]:
    """Return the ids of the first cards, once they are there."""
    wait_until(page, "!document.getElementById('cards').hasAttribute('aria-busy')")
    return page.locator(".card").evaluate_all("(all) => all.map((one) => one.dataset.clip)")[:count]


@contextlib.contextmanager
def answered(page):
    """Wait for the search that the block sets off."""
    with page.expect_response(lambda answer: answer.url.endswith("/api/search")):
        yield


def test_the_page_shows_the_clips_nearest_to_words(searching_app, browser, table, towers):
    with browser.page(searching_app.url) as page:
        shown(page)
        page.fill("#words", WORDS)
        with answered(page):
            page.press("#words", "Enter")
        assert shown(page) == best(table, towers.embed_texts([WORDS])[0], 5)
        assert "q=red+circle+moving+left" in page.url


def test_a_minus_term_and_a_filter_count_and_the_address_keeps_both(searching_app, browser, table, towers):
    plus, minus = towers.embed_texts([WORDS, "a big star"])
    wanted = best(table, plus - 0.5 * minus, 5, allowed=lambda clip_id: "-val-" in clip_id or "hostile" in clip_id)
    with browser.page(searching_app.url) as page:
        shown(page)
        page.fill("#words", "a big star")
        with answered(page):
            page.click("#add-minus")
        page.fill("#words", WORDS)
        with answered(page):
            page.check("input[name=splits][value=val]")
        assert shown(page) == wanted
        address = page.url
    with browser.page(address) as page:
        assert shown(page) == wanted
        assert page.locator(".term.minus").inner_text().startswith("− a big star")


def test_more_like_a_clip_finds_itself_first(searching_app, browser, table):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        clip_id = shown(page)[2]
        with answered(page):
            page.get_by_label(f"more like {clip_id}", exact=True).click()
        assert shown(page)[0] == clip_id
        assert page.locator(".card .similarity").first.inner_text() == "1.000"


def test_an_uploaded_example_finds_itself_first_and_is_not_kept(searching_app, browser, small_shards, tmp_path):
    clip_id = "simple-0-test-000005"
    file = tmp_path / "mine.mp4"
    file.write_bytes(searching_app.get(f"/api/clips/{clip_id}/video").content)
    with browser.page(searching_app.url) as page:
        shown(page)
        with answered(page):
            page.set_input_files("#example", file)
        assert shown(page)[0] == clip_id
        address = page.url
    with browser.page(address) as page:  # the link goes on working
        assert shown(page)[0] == clip_id
    kept = [path for path in (searching_app.log_file.parent / "examples").rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} == {".npy"}


def test_what_is_no_video_is_refused_with_a_reason(searching_app):
    answer = searching_app.post("/api/search/example", content=b"<html>" * 1000)
    assert answer.status_code == 400
    assert "the video cannot be used" in answer.json()["detail"]


def test_an_upload_that_hides_its_length_is_stopped_while_it_streams(searching_app):
    def files() -> list:
        return sorted(path for path in searching_app.log_file.parent.rglob("*") if path.is_file())

    before = files()
    head = b"POST /api/search/example HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(searching_app, head + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 64)
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert files() == before


def test_a_card_plays_while_the_pointer_or_the_keyboard_is_on_it(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        shown(page)
        page.locator(".card").nth(1).hover()
        wait_until(page, "(v => v && !v.paused && v.currentTime > 0)(document.querySelector('.card video'))")
        page.mouse.move(0, 0)
        wait_until(page, "!document.querySelector('.card video')")
        page.locator(".card .frame").nth(2).focus()
        wait_until(page, "(v => v && v.currentTime > 0)(document.querySelectorAll('.card')[2].querySelector('video'))")


def test_selected_ids_are_exported(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        ids = shown(page)
        page.locator(".card input[type=checkbox]").nth(0).check()
        page.locator(".card input[type=checkbox]").nth(3).check()
        with page.expect_download() as download:
            page.click("#export")
        assert Path(download.value.path()).read_text().splitlines() == [ids[0], ids[3]]


def test_a_clip_page_shows_each_caption_with_its_similarity_and_the_nearest_clips(
    searching_app, browser, table, towers
):
    clip_id = "simple-0-val-000003"
    facts = searching_app.get(f"/api/clips/{clip_id}/similarities").json()
    feature = table.video[table.row_of(clip_id)].astype(np.float64)
    expected = [float(feature @ towers.embed_texts([one["text"]])[0]) for one in facts["captions"]]
    assert [one["similarity"] for one in facts["captions"]] == pytest.approx(expected, abs=1e-5)
    with browser.page(f"{searching_app.url}/clips/{clip_id}") as page:
        assert page.locator(".captions li").count() == len(expected)
        near = page.locator("#neighbours .card").evaluate_all("(all) => all.map((one) => one.dataset.clip)")
        assert near == [one for one in best(table, feature, 9) if one != clip_id][:8]
        wait_until(page, "document.getElementById('player').readyState >= 2")


def test_stepping_shows_the_next_frame(searching_app, browser):
    with browser.page(f"{searching_app.url}/clips/simple-0-val-000003") as page:
        wait_until(page, "document.getElementById('player').readyState >= 2")
        page.click("#on")
        page.click("#on")
        wait_until(page, "!document.getElementById('player').seeking")
        assert page.evaluate("document.getElementById('player').currentTime") == pytest.approx(2.5 / 8, abs=0.5 / 8)


def test_captions_with_markup_are_shown_as_text_and_run_nothing(searching_app, browser):
    for number, caption in enumerate(HOSTILE_CAPTIONS):
        with browser.page(f"{searching_app.url}/clips/hostile-{number}") as page:
            assert page.inner_text("h1") == " ".join(caption.split())
            assert page.evaluate("window.captionRan") is None
    with browser.page(f"{searching_app.url}/?like=hostile-0&splits=val") as page:
        assert "hostile-0" in shown(page)
        assert HOSTILE_CAPTIONS[0].split()[0] in page.locator(".card .caption").first.inner_text()
        assert page.evaluate("window.captionRan") is None


def test_every_control_has_a_name_and_the_keyboard_reaches_a_result(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        shown(page)
        nameless = page.evaluate(
            """() => {
              const isNamed = (one) => one.ariaLabel || one.textContent.trim() || one.title
                || [...(one.labels || [])].some((label) => label.textContent.trim());
              return [...document.querySelectorAll('a, button, input, select, textarea, summary, video')]
                .filter((one) => one.checkVisibility() && !one.hasAttribute('aria-hidden') && !isNamed(one))
                .map((one) => one.outerHTML);
            }"""
        )
        assert nameless == []
        page.focus("#words")
        for _ in range(200):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.classList.contains('frame')"):
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#player")


def test_ten_clients_at_once_are_all_answered(searching_app):
    def ask(number: int) -> int:
        paths = [f"/api/clips/simple-0-train-{number:06d}/poster", f"/api/clips/simple-0-train-{number:06d}/video"]
        found = [searching_app.post("/api/search", json={"plus": [f"star number {number}"]}).status_code]
        return max(found + [searching_app.get(path).status_code for path in paths])

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(ask, range(30))) == {200}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"filters": {"splits": ["nowhere"]}}, "unknown split"),
        ({"like": ["none"]}, "cannot be an example"),
        ({"like": ["example:../../job"]}, "cannot be an example"),
        ({"mixture": 2}, "mixture"),
        ({"plus": ["x"], "nonsense": 1}, "nonsense"),
        ({"limit": 100000}, "limit"),
        ({"plus": ["\ud800"]}, "plus.0: "),
    ],
)
def test_what_cannot_be_answered_has_a_reason(searching_app, asked, told):
    headers = {"content-type": "application/json"}
    answer = searching_app.post("/api/search", content=json.dumps(asked), headers=headers)
    assert answer.status_code in (400, 422)
    assert told in answer.json()["detail"]
