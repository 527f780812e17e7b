"""The card of a captioning job shows what it is given, survives what captions hold, and says the same as JSON."""

import base64
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mama_ray.reporting.caption_card import (
    MAX_SAMPLES,
    CaptionCard,
    CaptionSample,
    card_to_json,
    headline,
    median_length,
    render_caption_card,
    write_caption_card,
)
from mama_ray.storage.places import Place

HOSTILE = '<script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)> & {{ 7 * 7 }} \u202e"\''
SIDE = 336


def picture(shade: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), shade, np.uint8)


CARD = CaptionCard(
    title="Captions of <shards>",
    num_clips=1000,
    num_good=900,
    num_flagged=80,
    num_errors=20,
    facts={"model": "llava & co", "prompt": "USER: <image>\ndescribe"},
    flags={"cut_off": 50, "duplicate": 35, "refusal": 0},
    errors=[("moov atom not found", 18), ("<b>no frames</b>", 2)],
    lengths=[0, 0, 480, 300, 150, 50],
    vocabulary=321,
    common=[("the video shows a man", 30), ("once only", 1)],
    opening=("the video shows", 0.5),
    stages={"read": 1.5, "decode and grid": 100.0, "prefill and decode": 4000.0},
    duration_s=1200.0,
    clips_per_s=0.8333,
    tokens_per_s=1234.5,
    busy_share=0.874,
    limit="Decoding holds it up.",
    speed_note="Against the engines alone.",
    pool=[(0.0, 0), (30.0, 1), (60.0, 3), (1200.0, 3)],
    samples=[
        CaptionSample("good-1", "a man walks", pixels=picture(90)),
        CaptionSample("flagged-1", HOSTILE, flags=("cut_off", "duplicate"), pixels=picture(30)),
        CaptionSample("bad-1", error="moov atom not found"),
    ],
)


@pytest.fixture(scope="module")
def page() -> str:
    return render_caption_card(CARD)


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_the_page_loads_nothing_from_outside(page):
    addresses = re.findall(r"""<[^>]*?\b(?:src|href)\s*=\s*["']?([^"')\s>]+)""", page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"<script|@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_what_captions_and_errors_hold_is_escaped(page):
    assert "<script>alert" not in page and "<img src=http" not in page and "<b>no frames" not in page
    assert "&lt;script&gt;alert" in page and "{{ 7 * 7 }}" in page
    assert "<title>Captions of &lt;shards&gt;</title>" in page
    # A right-to-left override ends with the caption: what follows stands in an element of its own direction.
    assert re.search(r"<bdi>[^<]*\u202e[^<]*</bdi>", page)


def test_the_page_says_what_came_of_the_rows(page):
    text = text_of(page)
    for expected in (
        "good 900 90.0 %",
        "flagged 80 8.0 %",
        "error 20 2.0 %",
        "cut off duplicate",  # the badges of the flagged sample
        "50 · 5.1 %",  # of 980 captions
        "moov atom not found 18 1.8 %",
        "the video shows a man 30 3.1 %",
        "the video shows : 50.0 % of the captions",
        "The engines had something to write in 87.4 % of their time. Decoding holds it up.",
        "1 h 06 min · 97.5 %",
        "minutes since the start",
        "bad-1 moov atom not found",
        "llava &amp; co",
    ):
        assert expected in text, expected
    assert "once only" not in text
    assert "refusal" not in text


def test_every_plot_is_well_formed_and_ids_are_unique(page):
    found = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(found) == 4
    for plot in found:
        ElementTree.fromstring(plot)
        assert not re.search(r"#0[12]0[12]0\d", plot), "a placeholder colour was left"
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_pictures_are_shown_small(page):
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    ]
    assert [(image.size, image.getpixel((9, 9))[0]) for image in pictures] == [((220, 220), 30), ((220, 220), 90)]


def test_the_headline_holds_the_numbers_that_are_known():
    assert headline(CARD) == {
        "clips": "1,000",
        "captions": "980",
        "good": "90.0 %",
        "median length": "3 words",
        "distinct words": "321",
        "clips/s": "0.833",
        "tokens/s": "1,234",
        "time": "20 min 00 s",
    }
    assert headline(replace(CARD, is_vocabulary_exact=False))["distinct words"] == "about 321"
    assert headline(CaptionCard("bare", 0)) == {"clips": "0", "captions": "0"}


@pytest.mark.parametrize(("lengths", "median"), [([0, 1], 1), ([1, 0, 1], 0), ([0, 2, 3], 2), ([0, 0, 0, 5, 4], 3)])
def test_the_median_length_is_the_lower_one(lengths, median):
    assert median_length(lengths) == median
    assert median == sorted(n for n, count in enumerate(lengths) for _ in range(count))[(sum(lengths) - 1) // 2]


def test_the_last_bin_of_the_lengths_says_that_it_holds_more():
    tail = render_caption_card(replace(CARD, lengths=[0, 5, 9, 1], samples=()))
    assert re.search(r">3\+<", tail)
    assert not re.search(r">\d+\+<", render_caption_card(replace(CARD, lengths=[0, 5, 9, 1, 0], samples=())))


@pytest.mark.parametrize(
    "card",
    [
        CaptionCard("no clips", 0),
        CaptionCard("no captions", 3, num_errors=3, errors=[("gone", 3)], lengths=[0, 0], opening=("", 0.0)),
        CaptionCard("one engine", 1, num_good=1, lengths=[1], pool=[(0, 1), (0.4, 1)], stages={"read": 0.0}),
        CaptionCard("an engine that never came", 1, num_errors=1, pool=[(0, 0)]),
        CaptionCard("no words", 1, num_flagged=1, samples=[CaptionSample("a", "", flags=("empty",))]),
        CaptionCard("no pool", 1, num_good=1, pool=[(5.0, 1), (5.0, 1)]),
    ],
    ids=lambda card: card.title,
)
def test_a_card_with_little_in_it_still_makes_a_page(card):
    assert f"<h1>{card.title}</h1>" in render_caption_card(card)
    json.dumps(card_to_json(card), allow_nan=False)


def test_a_few_rows_of_many_are_not_called_none_or_all():
    text = text_of(render_caption_card(CaptionCard("many", 10**6, num_good=10**6 - 1, num_errors=1)))
    assert "good 999,999 &gt; 99.9 %" in text
    assert "error 1 &lt; 0.1 %" in text
    assert "flagged 0 0.0 %" in text


def test_long_texts_and_many_samples_do_not_swell_the_page():
    samples = [CaptionSample(f"clip{number}", "word " * 5000) for number in range(3 * MAX_SAMPLES)]
    errors = [(f"reason {number}", 2) for number in range(100)]
    page = render_caption_card(replace(CARD, samples=samples, errors=errors, common=[("x" * 10**6, 2)]))
    assert len(page) < 200_000
    assert f"clip{MAX_SAMPLES - 1}<" in page and f"clip{MAX_SAMPLES}<" not in page
    assert "others 170" in text_of(page)


def test_json_says_the_same_without_pixels():
    document = json.loads(json.dumps(card_to_json(CARD), allow_nan=False))
    assert document["num_good"] == 900
    assert document["pool"][1] == [30.0, 1]
    assert document["errors"][1] == ["<b>no frames</b>", 2]
    assert [(sample["clip_id"], sample["outcome"]) for sample in document["samples"]] == [
        ("good-1", "good"),
        ("flagged-1", "flagged"),
        ("bad-1", "error"),
    ]
    assert document["samples"][1]["caption"] == HOSTILE
    assert "pixels" not in json.dumps(document)


def test_json_is_strict_where_numbers_are_numpys_or_none_at_all():
    card = replace(CARD, clips_per_s=float("nan"), busy_share=np.float32(0.5), lengths=np.array([0, 3]))
    document = json.loads(json.dumps(card_to_json(card), allow_nan=False))
    assert (document["clips_per_s"], document["busy_share"], document["lengths"]) == (None, 0.5, [0, 3])


def test_the_card_is_written_whole(tmp_path):
    path = write_caption_card(Place.of(tmp_path / "report"), CARD)
    assert path == str(tmp_path / "report" / "index.html")
    assert {entry.name for entry in (tmp_path / "report").iterdir()} == {"index.html", "card.json"}
    assert (tmp_path / "report" / "index.html").read_text() == render_caption_card(CARD)
    assert json.loads((tmp_path / "report" / "card.json").read_text()) == json.loads(json.dumps(card_to_json(CARD)))
