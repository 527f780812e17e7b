"""The app without an encoder, captions or a narrator."""

import pytest


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
