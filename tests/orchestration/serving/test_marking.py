"""Marking pairs on the page of weights: by keyboard, in two tabs, page after page, and where nobody answers."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.orchestration.serving.app_process import RunningApp, running_app
from tests.orchestration.serving.audit_without_ray import audit_of, write_audit
from tests.orchestration.serving.browsers import wait_until
from tests.orchestration.serving.test_weights import cards_of

_PLACES = "(all) => all.map((one) => [one.dataset.clip, +one.getAttribute('cx')])"


@pytest.fixture
def marked(tmp_path, small_shards) -> Iterator[RunningApp]:
    """The app with an audit of which nothing is marked."""
    audit = write_audit(small_shards, tmp_path / "audit")
    with running_app(tmp_path / "data", "--shards", str(small_shards), "--audit", str(audit)) as app:
        yield app


def mark(page, clip_id: str, name: str) -> None:
    page.click(f'.card[data-clip="{clip_id}"] [data-mark="{name}"]')


def pressed(page, clip_id: str) -> list[str]:
    buttons = page.locator(f'.card[data-clip="{clip_id}"] [aria-pressed="true"]')
    return buttons.evaluate_all("(all) => all.map((one) => one.dataset.mark)")


def test_pairs_are_marked_page_after_page_by_keyboard_and_in_two_tabs(marked, browser, small_shards):
    order = audit_of(small_shards).sort_by([("score", "ascending"), ("clip_id", "ascending")])["clip_id"].to_pylist()
    with browser.page(f"{marked.url}/weights") as page:
        cards_of(page)
        other = page.context.new_page()
        other.goto(f"{marked.url}/weights")
        cards_of(other)

        _marks_skip_no_pair(page, order)
        assert pressed(other, order[0]) == ["fine"], "another tab shows a mark at once"
        assert "6 fine" in other.inner_text("#counts")
        other.close()

        _a_rewrite_needs_no_mouse(page, order[7])
        _the_cloud_is_gone_through_by_keys(page)
        _what_is_not_answered_is_told(page)
        browser.troubles.clear()  # the browser tells of what was not answered


def _marks_skip_no_pair(page, order: list[str]) -> None:
    page.select_option("#shown", "unmarked")
    expect(page.locator("#told")).to_contain_text(f"24 of {len(order)}")
    assert cards_of(page) == order[:24]
    for clip_id in order[:6]:
        mark(page, clip_id, "fine")
    expect(page.locator("#counts")).to_contain_text("6 fine")
    page.click("#more")
    wait_until(page, "document.querySelectorAll('.card').length === 48")
    assert cards_of(page) == order[:48]


def _a_rewrite_needs_no_mouse(page, clip_id: str) -> None:
    card = page.locator(f'.card[data-clip="{clip_id}"]')
    button, box = card.locator("[data-mark=rewrite]"), card.locator("textarea")
    button.focus()
    page.keyboard.press("Enter")
    expect(box).to_be_focused()
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    expect(button).to_be_focused()
    assert pressed(page, clip_id) == []
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("what is <b>right</b>")
    page.keyboard.press("Control+Enter")
    expect(button).to_be_focused()
    expect(card.locator(".other")).to_have_text("rewritten what is <b>right</b>")
    assert pressed(page, clip_id) == ["rewrite"]


def _the_cloud_is_gone_through_by_keys(page) -> None:
    page.focus("#colour")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    last = page.evaluate("document.activeElement.dataset.clip")
    page.keyboard.press("ArrowLeft")
    here = page.evaluate("document.activeElement.dataset.clip")
    dots = dict(page.locator("#cloud circle").evaluate_all(_PLACES))
    assert [name for name in dots if dots[name] > dots[here]] in ([last], []), "it is the one with the next loss"
    assert here != last and here in page.inner_text("#cloud-told")
    assert max(dots.values()) - min(dots.values()) > 300, "of 560: the dots lie over the whole of the picture"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/clips/{here}")
    page.go_back()
    cards_of(page)


def _what_is_not_answered_is_told(page) -> None:
    page.context.set_offline(True)
    page.click("#get-corrected")
    expect(page.locator("#toast")).to_contain_text("does not answer")
    page.select_option("#topic", "circle")
    expect(page.locator("#told")).to_contain_text("does not answer")
    assert page.locator(".card").count() == 0, "no pairs of another choice"
    page.context.set_offline(False)
