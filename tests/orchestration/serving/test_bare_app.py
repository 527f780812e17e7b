"""The app without an encoder, captions or a narrator."""

import pytest

from tests.orchestration.serving.browsers import wait_until


@pytest.mark.parametrize(
    ("path", "missing", "remedy"),
    [("/", "search", "--run"), ("/narrate", "narrate", "--narrator"), ("/weights", "weights", "--audit")],
)
def test_a_page_says_what_is_missing_and_how_to_get_it(bare_app, browser, path, missing, remedy):
    with browser.page(bare_app.url + path) as page:
        told = page.locator(f"[data-missing={missing}]")
        assert remedy in told.inner_text()


def test_the_page_of_the_interface_names_its_routes_without_another_host(bare_app, browser):
    with browser.page(f"{bare_app.url}/docs") as page:
        assert "/api/clips/{clip_id}/video" in page.inner_text("main")


def test_clips_are_browsed_and_filtered_without_an_encoder(bare_app, browser):
    with browser.page(bare_app.url) as page:
        page.wait_for_selector(".card")
        assert "115 clips, in the order of the corpus" in page.inner_text("#told")
        with page.expect_response(lambda answer: answer.url.endswith("/api/search")):
            page.check("input[name=splits][value=meta]")
        wait_until(page, "document.querySelectorAll('.card').length === 16")
        assert page.locator(".card .similarity").count() == 0


def test_a_clip_page_works_with_its_own_captions_alone(bare_app, browser):
    with browser.page(f"{bare_app.url}/clips/simple-0-val-000003") as page:
        assert "jobs/caption.py" in page.locator("[data-missing=captions]").inner_text()
        assert page.locator(".captions li").count() >= 1
        assert page.locator("meter").count() == 0


def test_words_without_an_encoder_are_answered_with_what_is_missing(bare_app):
    answer = bare_app.post("/api/search", json={"plus": ["a star"]})
    assert (answer.status_code, "--run" in answer.json()["detail"]) == (400, True)
    assert bare_app.post("/api/search/example", content=b"x").status_code == 400
