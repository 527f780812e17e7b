"""Captions and topics of any length and direction in a browser: nothing is cut off, pushed away or turned round."""

from collections.abc import Iterator

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from tests.orchestration.serving.app_process import RunningApp, make_shards, running_app
from tests.orchestration.serving.audit_without_ray import write_audit

LONG, TURNED = "hostile-long", "hostile-turned"
TURNING = "\u202etopic"  # what comes after it in the same line would be read from right to left
CORPUS = CorpusConfig(num_train=4, num_meta=4, num_val=4, num_test=4)


@pytest.fixture(scope="module")
def odd_app(tmp_path_factory) -> Iterator[RunningApp]:
    """The app over a corpus with a topic and a caption without an end, and one with a letter that turns the others."""
    rows = [
        {"clip_id": LONG, "captions": ["W" * 900], "topic": "T" * 120},
        {"clip_id": TURNED, "captions": ["\u202ea star"], "topic": TURNING},
    ]
    more = [{"video": f"simple-0-val-{number:06d}.mp4", "split": "val", **row} for number, row in enumerate(rows)]
    folder = tmp_path_factory.mktemp("odd")
    shards = make_shards(folder, CORPUS, more)
    audit = write_audit(shards, folder / "audit")
    with running_app(folder / "data", "--shards", str(shards), "--audit", str(audit)) as app:
        yield app


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("path", ["/?splits=val", "/weights", f"/clips/{LONG}"])
def test_a_word_without_an_end_makes_no_page_wider(odd_app, browser, path, width):
    with browser.page(odd_app.url + path, width=width) as page:
        page.wait_for_selector("#player" if "clips" in path else ".card")
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_long_caption_leaves_the_player_in_sight(odd_app, browser):
    with browser.page(f"{odd_app.url}/clips/{LONG}") as page:
        assert page.locator("#player").bounding_box()["y"] < 400
        assert page.locator(".captions p").first.inner_text() == "W" * 900


def test_a_topic_turns_no_name_beside_it(odd_app, browser):
    with browser.page(f"{odd_app.url}/clips/{TURNED}") as page:
        before_and_after = page.evaluate(
            """() => {
              const line = document.querySelector('.eyebrow');
              const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
              let name = null;
              while (walker.nextNode()) if (walker.currentNode.data.includes('simple-0-val')) name = walker.currentNode;
              const at = (place) => {
                const range = document.createRange();
                range.setStart(name, place);
                range.setEnd(name, place + 1);
                return range.getBoundingClientRect().left;
              };
              const start = name.data.indexOf('simple');
              return [at(start), at(start + 1)];
            }"""
        )
        assert before_and_after[0] < before_and_after[1], "its letters go from left to right"
