"""What is downloaded parses, says what a person wrote, and does nothing of what a caption says."""

import csv
import io
import json

import pytest
import srt
import webvtt

from mama_ray.captioning.timeline import TimelineConfig, build_timeline
from mama_ray.orchestration.serving.narrate.downloads import FORMATS

HOSTILE = ["<script>alert(1)</script>", "00:00:01.000 --> 00:00:02.000", "=CMD('calc')", "\n\n2\n", "+1-1", "@SUM(A1)"]


def entries_of(captions: list[str | None]) -> list:
    rows = [
        {"clip_id": f"v-{n}", "start_s": float(n), "end_s": n + 1.0, "sample": sample, "caption": caption,
         "mean_logprob": -1.0 - sample, "flags": [], "error": None if caption is not None else "no frames"}
        for n, caption in enumerate(captions)
        for sample in range(2)
    ]  # fmt: skip
    return build_timeline(rows, TimelineConfig(merge=False, max_texts=64))


def written(name: str, captions: list[str | None], edits: dict[str, str] | None = None) -> str:
    return FORMATS[name][1](entries_of(captions), edits or {}, float(len(captions)))


def test_subtitles_hold_hostile_captions_as_text():
    parsed = list(srt.parse(written("srt", HOSTILE)))
    assert [cue.start.total_seconds() for cue in parsed] == [0, 1, 2, 3, 4, 5]
    assert not any("<" in cue.content or "-->" in cue.content for cue in parsed)
    cues = webvtt.from_buffer(io.StringIO(written("vtt", HOSTILE)))
    assert len(cues) == 6 and cues[0].raw_text == "&lt;script&gt;alert(1)&lt;/script&gt;"


def test_no_cell_of_the_table_is_a_formula():
    rows = list(csv.DictReader(io.StringIO(written("csv", HOSTILE).removeprefix("\ufeff"))))
    assert len(rows) == 6
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for row in rows for cell in (row["text"], row["raw"]))
    assert rows[2]["text"] == "'=CMD('calc')" and float(rows[0]["mean_logprob"]) == -1.0


def test_the_text_of_a_person_is_shown_and_the_raw_one_stays():
    captions, edits = ["a cat", "a dog", None], {"v-1": "a wolf", "v-2": "a blank"}
    lines = [json.loads(line) for line in written("jsonl", captions, edits).splitlines()]
    assert [line["text"] for line in lines] == ["a cat", "a wolf", "a blank"]
    assert [line["raw"] for line in lines] == ["a cat", "a dog", None] and lines[1]["edited"] == "a wolf"
    assert [cue.content for cue in srt.parse(written("srt", captions, edits))] == ["a cat", "a wolf", "a blank"]


def test_an_empty_text_of_a_person_silences_a_window():
    assert [cue.content for cue in srt.parse(written("srt", ["a cat", "a dog"], {"v-0": ""}))] == ["a dog"]


def test_neighbours_that_say_the_same_are_one_cue():
    cues = list(srt.parse(written("srt", ["a cat", "a cat", "a dog"])))
    assert [(cue.end.total_seconds(), cue.content) for cue in cues] == [(2, "a cat"), (3, "a dog")]


@pytest.mark.parametrize("name", FORMATS)
def test_a_narration_without_a_window_is_an_empty_file(name):
    assert len(written(name, []).splitlines()) <= 1
