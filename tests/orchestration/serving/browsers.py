"""A real Chromium whose every page is held to the same: no error on its console, no request to another host."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
_PATIENCE_MS = 30_000  # of a machine that others keep busy


class WatchedBrowser:
    """Opens pages; `troubles` is what their consoles and requests have said that they must not."""

    def __init__(self, browser) -> None:
        self._browser = browser
        self.troubles: list[str] = []

    @contextlib.contextmanager
    def page(self, url: str, *, width: int = 1280, height: int = 900, **more) -> Iterator:
        """Give a page of a context of its own at an address; fails at its end if there was any trouble.

        What a test provokes on purpose it takes out of `troubles` before.
        """
        self.troubles = []
        context = self._browser.new_context(viewport={"width": width, "height": height}, **more)
        context.set_default_timeout(_PATIENCE_MS)
        page = context.new_page()
        self._watch(page, urlsplit(url).netloc)
        try:
            page.goto(url)
            yield page
        finally:
            context.close()
        assert not self.troubles

    def _watch(self, page, host: str) -> None:
        def look(request) -> None:
            asked = urlsplit(request.url)
            if asked.scheme in ("http", "https", "ws", "wss") and asked.netloc != host:
                self.troubles.append(f"request to {request.url}")

        page.on("request", look)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: self.troubles.append(f"console: {message.text}") if message.type == "error" else None,
        )


def wait_until(page, expression: str, limit_s: float = _PATIENCE_MS / 1000) -> None:
    """Wait until an expression is true in the page; Playwright's own wait is refused by our policy, as it evaluates a
    text in the page itself.
    """
    deadline = time.monotonic() + limit_s
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, f"it never came true that {expression}"
        page.wait_for_timeout(50)


@contextlib.contextmanager
def chromium() -> Iterator[WatchedBrowser]:
    """Start Debian's Chromium; skips where there is none, but fails where MAMA_RAY_NEEDS_CHROMIUM is set."""
    if CHROMIUM is None:
        assert not os.environ.get("MAMA_RAY_NEEDS_CHROMIUM"), "there is no chromium, and it was said to be needed"
        pytest.skip("needs a chromium, which is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Debian's own needs no sandbox of its own in a container, and plays sound to nobody.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"],
        )
        try:
            yield WatchedBrowser(browser)
        finally:
            browser.close()
