"""Captions of windows become a time line: equal neighbours are one entry, samples are told once, nothing is lost."""

import json
import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mama_ray.captioning.timeline import TimelineConfig, build_timeline


def row(number: int, caption: str | None, sample: int = 0, **changes) -> dict:
    known = {"clip_id": f"w{number}", "start_s": float(number), "end_s": number + 1.0, "sample": sample,
             "caption": caption, "mean_logprob": -1.0, "flags": [], "error": None}  # fmt: skip
    return known | changes


def told(entries) -> list[tuple]:
    return [(entry.start_s, entry.end_s, [text.text for text in entry.texts]) for entry in entries]


def test_equal_neighbours_are_one_entry():
    rows = [row(0, "a man walks"), row(1, "A man walks."), row(2, "he sits"), row(3, "a man walks")]
    entries = build_timeline(rows, TimelineConfig())
    assert told(entries) == [(0, 2, ["a man walks"]), (2, 3, ["he sits"]), (3, 4, ["a man walks"])]
    assert entries[0].clip_ids == ("w0", "w1") and entries[0].texts[0].num_samples == 2


def test_windows_with_a_gap_between_them_are_not_merged():
    rows = [row(0, "a man walks"), row(2, "a man walks")]
    assert len(build_timeline(rows, TimelineConfig())) == 2
    assert len(build_timeline([row(0, "x y"), row(1, "x y")], TimelineConfig(merge=False))) == 2


def test_overlapping_windows_that_say_the_same_are_merged():
    rows = [row(number, "a man walks", end_s=number + 3.0) for number in range(4)]
    assert told(build_timeline(rows, TimelineConfig())) == [(0, 6, ["a man walks"])]


def test_samples_are_told_once_and_the_likeliest_first():
    rows = [row(0, "he sits", 0, mean_logprob=-2.0), row(0, "He sits.", 1, mean_logprob=-0.5),
            row(0, "a man rests", 2, mean_logprob=-1.0)]  # fmt: skip
    (entry,) = build_timeline(rows, TimelineConfig(max_texts=2))
    assert [(text.text, text.num_samples, text.mean_logprob) for text in entry.texts] == [
        ("He sits.", 2, -0.5), ("a man rests", 1, -1.0)]  # fmt: skip
    (entry,) = build_timeline(rows, TimelineConfig())
    assert [text.text for text in entry.texts] == ["He sits."] and [one.raw for one in entry.others] == ["a man rests"]


def test_a_style_merges_what_differs_by_letters_alone_and_keeps_the_raw_text():
    rows = [row(0, "#O a man X walks"), row(1, "#O a man Y walks")]
    assert len(build_timeline(rows, TimelineConfig())) == 2
    (entry,) = build_timeline(rows, TimelineConfig(subject="person"))
    line = entry.to_json("v")
    assert (line["text"], line["raw"], line["clip_ids"]) == ("a man walks", "#O a man X walks", ("w0", "w1"))


def test_errors_and_hidden_captions_stay_in_the_lines():
    rows = [row(0, None, error="damaged"), row(1, None, error="damaged"), row(2, "N/A", flags=["empty"])]
    entries = build_timeline(rows, TimelineConfig())
    lines = [entry.to_json("v") for entry in entries]
    assert [(line["text"], line["error"], len(line["clip_ids"])) for line in lines] == [
        (None, "damaged", 2), (None, None, 1)]  # fmt: skip
    assert lines[1]["not_shown"][0]["text"] == "N/A"


def test_a_sample_whose_likelihood_nobody_knows_comes_last_and_is_json():
    logprobs = {"of nothing": math.nan, "ruled out": -math.inf, "the likeliest": -0.5, "not told": None, "next": -2.0}
    rows = [row(0, text, number, mean_logprob=value) for number, (text, value) in enumerate(logprobs.items())]
    (entry,) = build_timeline(rows, TimelineConfig(max_texts=5))
    assert [text.text for text in entry.texts] == ["the likeliest", "next", "of nothing", "ruled out", "not told"]
    line = json.dumps(entry.to_json("v"), allow_nan=False)
    assert [text["mean_logprob"] for text in json.loads(line)["texts"]] == [-0.5, -2.0, None, None, None]


CAPTIONS = st.sampled_from(["a b", "A b.", "#O a man X sits", "#O a man Y sits", "", "c d"]) | st.none()


@given(
    captions=st.lists(st.lists(CAPTIONS, min_size=1, max_size=3), max_size=12), merge=st.booleans(),
    subject=st.sampled_from(["keep", "person"]), max_texts=st.integers(1, 3),
)  # fmt: skip
def test_no_window_and_no_caption_is_lost(captions, merge, subject, max_texts):
    rows = [
        row(number, text, sample, error=None if text is not None else "bad", flags=["empty"] if text == "" else [])
        for number, texts in enumerate(captions)
        for sample, text in enumerate(texts)
    ]
    entries = build_timeline(rows, TimelineConfig(merge=merge, subject=subject, max_texts=max_texts))
    assert [name for entry in entries for name in entry.clip_ids] == [f"w{n}" for n in range(len(captions))]
    assert all(before.end_s <= after.start_s for before, after in pairwise(entries))
    for entry in entries:
        assert len(entry.texts) <= max_texts
        told = {text.raw.lower().strip(".") for text in (*entry.texts, *entry.others)}
        for number in entry.clip_ids:
            for text in captions[int(number[1:])]:
                if text and subject == "keep":
                    assert text.lower().strip(".") in told
