"""The page of weights in a real browser: what is marked stays, and what is exported is what training takes."""

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mama_ray.auditing.exclusions import read_exclusions
from mama_ray.captioning.table import read_caption_files
from mama_ray.storage.places import Place
from tests.orchestration.serving.app_process import start_app
from tests.orchestration.serving.audit_without_ray import audit_of, write_audit
from tests.orchestration.serving.conftest import HOSTILE_CAPTIONS


@pytest.fixture(scope="module")
def audit(tmp_path_factory, small_shards) -> Path:
    return write_audit(small_shards, tmp_path_factory.mktemp("audit"))


class Restarted:
    """The app over an audit, that may be started again over the same folder."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self._start = lambda: start_app(data, *arguments)
        self.app = self._start()

    def restart(self) -> None:
        """End it, and start it again."""
        self.app.stop()
        self.app = self._start()


@pytest.fixture(scope="module")
def audited(tmp_path_factory, small_shards, audit) -> Iterator[Restarted]:
    """The app with an audit."""
    found = Restarted(tmp_path_factory.mktemp("weights-app"), "--shards", str(small_shards), "--audit", str(audit))
    yield found
    found.app.stop()


def cards_of(page) -> list[str]:
    expect(page.locator("#pairs:not([aria-busy]) .card").first).to_be_visible(timeout=30_000)
    return page.locator(".card").evaluate_all("(all) => all.map((one) => one.dataset.clip)")


def test_the_least_trusted_pairs_come_first_and_the_cloud_has_all(audited, browser, small_shards):
    table = audit_of(small_shards).sort_by([("score", "ascending"), ("clip_id", "ascending")])
    suspects = [row["clip_id"] for row in table.to_pylist() if row["verdict"] != "keep"]
    with browser.page(f"{audited.app.url}/weights") as page:
        page.wait_for_selector("#cloud circle")
        assert cards_of(page) == suspects[:24]
        assert page.locator("#cloud circle").count() == len(table)
        page.click("#more")
        expect(page.locator(".card")).to_have_count(len(suspects), timeout=30_000)
        circles = {row["clip_id"] for row in table.to_pylist() if row["topic"] == "circle"}
        page.select_option("#topic", "circle")
        expect(page.locator("#cloud circle")).to_have_count(len(circles), timeout=30_000)
        expect(page.locator(".card")).to_have_count(len(circles & set(suspects)), timeout=30_000)
        assert set(cards_of(page)) == circles & set(suspects)
        unlabelled = "[...document.querySelectorAll('input,select,textarea,button,a')].filter((one) => "
        unlabelled += "!(one.labels && one.labels.length) && !one.ariaLabel && !one.textContent.trim()).length"
        assert page.evaluate(unlabelled) == 0


def test_marks_survive_a_restart_and_decide_what_is_exported(audited, browser, small_shards, tmp_path):
    with browser.page(f"{audited.app.url}/weights") as page:
        first, second, third = cards_of(page)[5:8]  # behind those with hostile captions
        page.click(f'[data-clip="{first}"] [data-mark="wrong"]')
        page.click(f'[data-clip="{second}"] [data-mark="rewrite"]')
        page.fill(f'[data-clip="{second}"] textarea', "=a better <b>caption</b>")
        page.click(f'[data-clip="{second}"] .rewrite button')
        page.click(f'[data-clip="{third}"] [data-mark="fine"]')
        expect(page.locator("#counts")).to_contain_text("1 wrong, 1 fine, 1 rewritten", timeout=30_000)
    audited.restart()
    with browser.page(f"{audited.app.url}/weights") as page:
        cards_of(page)
        pressed = page.locator('[aria-pressed="true"]').evaluate_all("(all) => all.map((one) => one.dataset.mark)")
        assert pressed == ["wrong", "rewrite", "fine"]
        with page.expect_download() as download:
            page.click("#get-exclude")
        download.value.save_as(tmp_path / "exclude.csv")
        with page.expect_download() as download:
            page.click("#get-corrected")
        download.value.save_as(tmp_path / "corrected.zip")
    listed = read_exclusions(Place.of(tmp_path / "exclude.csv"))
    captions = {row["clip_id"]: row for row in audit_of(small_shards).to_pylist()}
    assert [(one.clip_id, one.caption_id) for one in listed] == [
        (name, captions[name]["caption_id"]) for name in (first, second)
    ]
    with zipfile.ZipFile(tmp_path / "corrected.zip") as archive:
        archive.extractall(tmp_path)
    (table,) = read_caption_files(Place.of(tmp_path / "corrected"))
    assert table.select(["clip_id", "caption", "source", "video_sha256"]).to_pylist() == [
        {
            "clip_id": second,
            "caption": "=a better <b>caption</b>",
            "source": "human",
            "video_sha256": captions[second]["video_sha256"],
        }
    ]


def test_hostile_captions_are_shown_and_exported_as_text(audited, browser):
    with browser.page(f"{audited.app.url}/weights") as page:
        cards_of(page)
        shown = page.locator(".card .caption").all_inner_texts()
        assert set(HOSTILE_CAPTIONS) <= set(shown)
        assert page.evaluate("window.captionRan === undefined")
    rows = list(csv.reader(io.StringIO(audited.app.get("/api/weights/exclude.csv?unmarked=true").text)))
    assert sum("CMD" in cell for row in rows for cell in row) == 1
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"clip_id": "no-such-clip", "caption_id": "0" * 16, "mark": "wrong"}, 404),
        ({"clip_id": "../../x", "caption_id": "../../../passwd", "mark": "wrong"}, 422),
        ({"clip_id": "a", "caption_id": "0" * 16, "mark": "burn"}, 422),
        ({"clip_id": "a", "caption_id": "0" * 16, "mark": "wrong", "more": 1}, 422),
        ({"clip_id": "a", "caption_id": "0" * 16, "mark": "rewrite", "text": "x" * 3000}, 422),
    ],
)
def test_what_is_no_mark_is_refused(audited, content, status):
    assert audited.app.post("/api/weights/marks", json=content).status_code == status


def test_without_an_audit_the_page_says_how_to_get_one(bare_app, browser):
    with browser.page(f"{bare_app.url}/weights") as page:
        assert "jobs/audit.py" in page.inner_text("[data-missing=weights]")
    assert bare_app.get("/api/weights/pairs").status_code == 404
