"""The page of a narrator's run shows what it wrote of val beside what a person did, and escapes both."""

import re

import numpy as np

from mama_ray.evaluation.caption_metrics.scores import Subset, score_captions
from mama_ray.reporting.narrator_page import NarratedClip, NarratorReport, render_narrator_report


def test_the_page_shows_captions_curves_and_where_they_come_from():
    records = [{"step": step, "train/caption_loss": 3 - step / 10} for step in range(1, 9)]
    records += [{"step": 8, "val/caption_loss": 2.5, "val/colour_right": 0.0}]
    sample = NarratedClip("clip-1", np.full((48, 48, 3), 90, np.uint8), "a <b>red</b> ring", "a blue square & more")
    page = render_narrator_report(
        NarratorReport(
            "Narrator tiny", records, (sample,), prompt="USER: <image> tell", num_val=1600,
            provenance={"command": "python jobs/narrator.py"}, settings={"seed": "0"},
        )
    )  # fmt: skip
    for expected in ("a &lt;b&gt;red&lt;/b&gt; ring", "a blue square &amp; more", "1,600", "USER: &lt;image&gt; tell"):
        assert expected in page
    assert "2.500 nats per token" in page and "python jobs/narrator.py" in page
    assert len(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)) == 2
    assert "data:image/jpeg" in page


def test_the_page_names_what_its_scores_are_of_and_what_was_not_run():
    frames = np.full((4, 48, 48, 3), 90, np.uint8)
    subset = Subset.of(["a", "b"], split="val", num_of=1600, every=800)
    scores = score_captions(["a red ring", "a blue square"], [["a red ring"], ["a green square"]], subset)
    records = [{"step": 8, "val/BLEU-1": 5.0, "val/BLEU-4": 1.0, "val/ROUGE-L": 2.0, "val/caption_loss": 2.5}]
    page = render_narrator_report(
        NarratorReport("gated", records, (NarratedClip("clip-1", frames, "a ring", "a square"),), scores=scores)
    )
    assert page.count("2 of the 1,600 clips of val, every 800th") == 2, "beside the table and the curves"
    assert "not run: needs the Java program" in page and "83.3 %" in page
    assert "Asked:" not in page and "data:image/jpeg" in page


def test_a_run_without_a_val_split_makes_a_page_too():
    page = render_narrator_report(NarratorReport("bare", [{"step": 1, "train/caption_loss": 1.0}]))
    assert "<h1>bare</h1>" in page
    assert "What it says" not in page
