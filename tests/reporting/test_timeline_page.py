"""The page of a narrated video escapes what captions say, and a browser shows each at its time without a server."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mama_ray.reporting.timeline_page import (
    NarratedVideo,
    TimelineLine,
    TimelinePage,
    clock,
    render_timeline_page,
    write_timeline_page,
    write_videos_page,
)
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> --> \u202e"


def page_of(*texts: str, **changes) -> TimelinePage:
    lines = [TimelineLine(float(n), n + 1.0, (text,)) for n, text in enumerate(texts)]
    return TimelinePage("my <b>hour</b>", float(len(texts)), lines, **changes)


def test_captions_and_names_are_escaped():
    page = render_timeline_page(page_of(HOSTILE, "a & b", video_src="../my%20hour.mp4?a=1&b=2"))
    assert page.count("<script>") == 1 and "<img" not in page and "<b>hour" not in page
    assert "&lt;/script&gt;" in page and "a &amp; b" in page
    assert 'src="../my%20hour.mp4?a=1&amp;b=2"' in page


def test_the_policy_allows_the_one_script_alone():
    page = render_timeline_page(page_of("one"))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1] and "sha256-" in policy


def test_errors_and_what_is_left_are_told():
    lines = [TimelineLine(0, 1, error="too many frames"), TimelineLine(1, 2)]
    page = render_timeline_page(TimelinePage("v", 2.0, lines, num_left=1200, links={"SubRip": "narration.srt"}))
    for expected in (
        "too many frames",
        "nothing to show",
        "1,200 windows are not narrated yet",
        'href="narration.srt"',
    ):
        assert expected in page


def test_a_video_of_which_nothing_is_narrated_has_a_page():
    assert "Nothing is narrated yet" in render_timeline_page(TimelinePage("v", 60.0, [], num_left=60))


def test_several_videos_have_a_page_of_their_own_each(tmp_path):
    videos = [NarratedVideo("a <i>b", 75.0, 75, 30, "videos/a b"), NarratedVideo("c", None, 1, 1, None, "no video")]
    write_videos_page(Place.of(tmp_path), videos, {"videos": "2"})
    page = (tmp_path / "index.html").read_text()
    for expected in ('href="videos/a%20b/index.html"', "a &lt;i&gt;b", "40 %", "1 min 15 s", "no video"):
        assert expected in page


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65.9, "1:05"), (600, "10:00"), (3725, "1:02:05")])
def test_times_are_written_as_players_do(seconds, text):
    assert clock(seconds) == text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
class TestInABrowser:
    @pytest.fixture(scope="class")
    def page(self, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("page")
        (folder / "my video.mp4").write_bytes(make_video(num_frames=80, fps=8, width=320, height=240))
        texts = [f"entry number {second}" for second in range(9)] + [HOSTILE]
        write_timeline_page(Place.of(folder), page_of(*texts, video_src="my%20video.mp4"))
        return folder / "index.html"

    def dom(self, page: Path, place: str) -> str:
        return run_chromium(page, place, "--dump-dom")

    def test_the_entry_is_shown_at_its_time(self, page):
        dom = self.dom(page, "t=5.5")
        assert re.search(r'id="now-text">entry number 5<', dom)
        current = re.findall(r'<li data-start="([\d.]+)"[^>]*class="current"', dom)
        assert current == ["5.000"]
        assert 'id="clock">0:05<' in dom

    def test_a_long_entry_is_current_again_when_a_shorter_one_inside_it_has_ended(self, tmp_path):
        lines = [TimelineLine(0, 9, ("the long one",)), TimelineLine(2, 3, ("the short one",))]
        write_timeline_page(Place.of(tmp_path), TimelinePage("v", 10.0, lines))
        for place, text in (("t=2.5", "the short one"), ("t=5", "the long one"), ("t=9.5", "")):
            assert f'id="now-text">{text}<' in self.dom(tmp_path / "index.html", place)

    def test_nothing_that_a_caption_says_is_run(self, page):
        dom = self.dom(page, "t=9.5")
        assert "<title>my &lt;b&gt;hour&lt;/b&gt;</title>" in dom
        assert "document.title='owned'" in re.search(r'id="now-text">(.*?)</bdi>', dom, re.DOTALL)[1]

    def test_a_search_leaves_what_it_finds(self, page):
        dom = self.dom(page, "q=NUMBER%203")
        assert 'id="hits" class="note">1 of 10<' in dom
        assert len(re.findall(r"<li [^>]*hidden", dom)) == 9

    def test_the_picture_is_that_of_the_time(self, page):
        picture = page.with_name("shot.png")
        run_chromium(page, "t=5.5", f"--screenshot={picture}", "--window-size=1280,900")
        pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
        # The right half of every frame of the video is this blue, which the page has nowhere.
        is_blue = np.abs(pixels - (30, 90, 160)).max(axis=-1) < 14
        assert is_blue.mean() > 0.03


def run_chromium(page: Path, place: str, *options: str) -> str:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio",
               f"--user-data-dir={page.parent}/profile", "--virtual-time-budget=8000", *options,
               f"{page.as_uri()}#{place}"]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return found.stdout
