"""The page of search as a person goes round in it: there and back, by addresses of others, and where nobody answers."""

import json

from playwright.sync_api import expect

from tests.orchestration.serving.browsers import wait_until
from tests.orchestration.serving.test_search import answered, shown


def ids(page) -> list[str]:
    """Return the ids of all cards, once they are there."""
    return shown(page, 10_000)


def _answer_with(answer: dict | None):
    return lambda route: route.fulfill(**answer) if answer else route.abort()


def test_more_goes_on_with_what_is_shown_whatever_was_typed_since(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=red+star") as page:
        first = ids(page)
        page.fill("#words", "a big blue ring")
        with answered(page):
            page.click("#more")
        wait_until(page, "document.querySelectorAll('.card').length === 48")
        wanted = searching_app.post("/api/search", json={"plus": ["red star"], "limit": 48}).json()["hits"]
        assert ids(page) == [one["clip_id"] for one in wanted]
        assert ids(page)[:24] == first


def test_who_comes_back_from_a_clip_finds_the_place_and_what_was_ticked(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        shown(page)
        with answered(page):
            page.click("#more")
        wait_until(page, "document.querySelectorAll('.card').length === 48")
        before = ids(page)
        page.locator(".card input").nth(30).check()
        page.locator(".card .frame").nth(40).click()
        page.wait_for_selector("#player")
        page.go_back()
        wait_until(page, "document.querySelectorAll('.card').length === 48 && scrollY > 500")
        assert ids(page) == before
        assert page.inner_text("#selected") == "1 selected"
        assert page.locator(".card input").nth(30).is_checked()
        with page.expect_download() as download:
            page.click("#export")
        assert download.value.path().read_text().split() == [before[30]]
        page.click("#unselect")
        page.reload()
        shown(page)
        assert not page.locator("#selection").is_visible()


def test_the_link_to_the_content_keeps_what_is_typed(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        before = ids(page)
        searches = []
        page.on("request", lambda request: searches.append(request.url) if request.url.endswith("/search") else None)
        page.fill("#words", "not yet asked")
        page.focus(".skip")
        page.keyboard.press("Enter")
        wait_until(page, "location.hash === '#content'")
        page.wait_for_timeout(300)
        assert page.input_value("#words") == "not yet asked"
        assert ids(page) == before and not searches


def test_an_address_with_filters_that_the_page_does_not_offer_is_not_answered_as_if_without(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star&splits=nowhere&min_duration_s=soon") as page:
        wait_until(page, "document.querySelectorAll('.term.filter').length === 2")
        expect(page.locator("#told")).to_contain_text("min_duration_s")
        assert ids(page) == []
        page.click("[aria-label='remove min duration s: soon']")
        expect(page.locator("#told")).to_contain_text("unknown split")
        page.click("[aria-label='remove splits: nowhere']")
        wait_until(page, "document.querySelectorAll('.card').length === 24")
        assert page.url == f"{searching_app.url}/?q=star"
        browser.troubles.clear()  # the browser tells of each 422 and 400


def test_what_an_address_leaves_open_is_as_on_an_empty_page(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star&mixture=much&plus=&plus=red&plus=red&minus=+") as page:
        shown(page)
        assert page.input_value("#mixture") == "1"
        assert page.locator(".term").all_inner_texts() == ["red\n×"]


def test_an_app_that_does_not_answer_is_told_in_words_and_no_markup_of_a_proxy_is(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        shown(page)
        for answer, told in (
            (None, "The app does not answer"),
            ({"status": 502, "content_type": "text/html", "body": "<html>Bad"}, "The answer was status 502."),
            ({"status": 200, "content_type": "text/html", "body": "<html>Log in"}, "in the place of the app"),
        ):
            page.route("**/api/search", _answer_with(answer))
            page.press("#words", "Enter")
            expect(page.locator("#told")).to_contain_text(told)
            assert ids(page) == []
            page.unroute("**/api/search")
        page.press("#words", "Enter")
        wait_until(page, "document.querySelectorAll('.card').length === 24")
        browser.troubles.clear()  # the browser tells of what was not answered


def test_nothing_moves_by_itself_for_who_wants_that(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star", reduced_motion="reduce") as page:
        shown(page)
        page.locator(".card .frame").nth(1).focus()
        page.locator(".card").nth(2).hover()
        page.wait_for_timeout(500)
        assert page.locator(".card video").count() == 0


def test_of_a_search_its_outcome_alone_is_read_out(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star") as page:
        shown(page)
        live = "[...document.querySelectorAll('main [aria-live], main [role=status]')].map((one) => one.id)"
        assert json.loads(page.evaluate(f"JSON.stringify({live})")) == ["told"]


def test_at_400_percent_no_card_is_cut_off_and_one_thing_has_the_focus(searching_app, browser):
    with browser.page(f"{searching_app.url}/?q=star", width=320, height=640) as page:
        shown(page)
        over = """[...document.querySelectorAll('.card .under > *')].filter((one) =>
            one.getBoundingClientRect().right > one.closest('.card').getBoundingClientRect().right).length"""
        assert page.evaluate(over) == 0
        page.focus("#mixture")
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("document.activeElement.id") == "example"
        outline = "getComputedStyle(document.getElementById('{}')).outlineStyle"
        assert page.evaluate(outline.format("example-label")) == "solid"
        assert page.evaluate(outline.format("terms")) == "none"
