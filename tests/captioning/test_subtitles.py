"""Subtitles parse in strict parsers, whatever the captions are; their times are in order and inside the video."""

import io

import pytest
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.captioning.subtitles import clean_text, cues_of, to_srt, to_vtt
from mama_ray.captioning.timeline import Entry, Text

HOSTILE = {
    "arrow": "from 00:00:01.000 --> 00:00:02.000 and on -> to ---> the end",
    "blank lines": "first\n\n\nsecond\r\n\r\n3\n00:00:01,000 --> 00:00:02,000\nthird",
    "right to left": "رجل يمشي في الشارع",
    "overridden": "\u202eabc\u2066 def",
    "long": "word " * 2000,
    "one word": "w" * 10_000,
    "tags": "<b>bold</b> <script>alert(1)</script> {\\an8}top & &amp; <c.red>",
    "control": "a\x00b\x07c\x1bd\x85e\u2028f\ud800g",
    "note": "NOTE this\nWEBVTT\nSTYLE\n1",
    "byte order": "\ufeffa caption",
}


def entry(start_s: float, end_s: float, *texts: str) -> Entry:
    told = tuple(Text(text, text, None, 1, ()) for text in texts)
    return Entry(start_s, end_s, told, (), (f"{start_s}",))


def parse_vtt(text: str) -> list[tuple[float, float, str]]:
    found = webvtt.from_buffer(io.StringIO(text))
    return [(seconds(cue.start), seconds(cue.end), cue.text) for cue in found]


def seconds(time: str) -> float:
    hours, minutes, rest = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def parse_srt(text: str) -> list[tuple[float, float, str]]:
    found = srt.parse(text, ignore_errors=False)
    return [(one.start.total_seconds(), one.end.total_seconds(), one.content) for one in found]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_captions_are_one_cue_each(name):
    entries = [entry(0, 1, "before"), entry(1, 2, HOSTILE[name]), entry(2, 3, "after")]
    cues = cues_of(entries, 3.0)
    vtt, lines = to_vtt(cues), to_srt(cues)
    vtt.encode(), lines.encode()
    for found in (parse_vtt(vtt), parse_srt(lines)):
        assert [(start, end) for start, end, _ in found] == [(0, 1), (1, 2), (2, 3)]
        assert (found[0][2], found[2][2]) == ("before", "after")
        assert "\n\n" not in found[1][2] and found[1][2].strip()
    assert vtt.count("-->") == lines.count("-->") == 3


def test_no_character_of_a_long_caption_is_lost():
    cues = cues_of([entry(0, 1, HOSTILE["long"]), entry(1, 2, HOSTILE["one word"])], 2.0)
    for found in (parse_vtt(to_vtt(cues)), parse_srt(to_srt(cues))):
        assert found[0][2].split() == ["word"] * 2000
        assert found[1][2] == "w" * 10_000


def test_tags_are_shown_as_text():
    cues = cues_of([entry(0, 1, HOSTILE["tags"])], 1.0)
    assert "&lt;b&gt;bold&lt;/b&gt;" in to_vtt(cues) and "&amp;amp;" in to_vtt(cues)
    assert "<" not in to_srt(cues).replace("-->", "") and "{" not in to_srt(cues)


def test_right_to_left_text_is_kept_and_overrides_are_not():
    assert clean_text(HOSTILE["right to left"]) == HOSTILE["right to left"]
    assert clean_text(HOSTILE["overridden"]) == "abc def"


def test_overlapping_entries_are_shown_until_the_next_begins():
    cues = cues_of([entry(0, 2, "a"), entry(1, 3, "b"), entry(1, 2, "c"), entry(2, 9, "d")], 3.5)
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in cues] == [
        (0, 1000, "a"), (1000, 2000, "c\nb"), (2000, 3500, "d")]  # fmt: skip


def test_what_is_said_of_a_long_clip_goes_on_when_a_shorter_one_inside_it_has_ended():
    cues = cues_of([entry(0, 9, "a"), entry(2, 3, "b"), entry(2.5, 2.8, "c"), entry(4, 4, "d")], 8.0)
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in cues] == [
        (0, 2000, "a"), (2000, 2500, "b"), (2500, 2800, "c"), (2800, 3000, "b"), (3000, 4000, "a"), (4000, 4001, "d"),
        (4001, 8000, "a")]  # fmt: skip


SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), max_size=8, unique_by=lambda span: span[0])


@given(spans=SPANS)
def test_at_every_moment_the_entry_that_began_last_and_has_not_ended_is_shown(spans):
    entries = [entry(start, start + length, f"from {start}") for start, length in spans]
    cues = cues_of(entries, 20.0)
    for second in range(20):
        shown = [cue.text for cue in cues if cue.start_ms <= 1000 * second < cue.end_ms]
        running = [start for start, length in spans if start <= second < start + length]
        assert shown == ([f"from {max(running)}"] if running else [])


def test_a_time_of_a_hundred_hours_is_written():
    cues = cues_of([entry(360_000.0, 360_001.5, "late")], 360_002.0)
    assert parse_vtt(to_vtt(cues))[0][:2] == parse_srt(to_srt(cues))[0][:2] == (360_000.0, 360_001.5)


def test_no_cue_is_a_file_that_parses():
    assert parse_vtt(to_vtt([])) == [] and parse_srt(to_srt([])) == []


ENTRIES = st.lists(
    st.builds(entry, st.floats(0, 50), st.floats(0, 60), st.text(max_size=30), st.text(max_size=5)), max_size=10
)


@given(entries=ENTRIES, duration_s=st.floats(0.01, 60))
def test_times_are_in_order_and_inside_the_video_for_any_captions(entries, duration_s):
    cues = cues_of(entries, duration_s)
    for found in (parse_vtt(to_vtt(cues)), parse_srt(to_srt(cues))):
        assert len(found) == len(cues)
        times = [moment for start, end, _ in found for moment in (start, end)]
        assert times == sorted(times) and all(start < end for start, end, _ in found)
        assert not times or (times[0] >= 0 and times[-1] <= duration_s + 1e-9)
