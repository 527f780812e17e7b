"""A time line as subtitles: SubRip (.srt) and WebVTT (.vtt), which players and strict parsers read.

Captions are text of others. What would end a cue, hide in it or style it is written so that it is seen as text: WebVTT
has escapes; SubRip has none, so that the signs of its markup become signs that look like them. The text itself stays in
narration.jsonl and in the caption table.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mama_ray.captioning.timeline import Entry

_LINE_CHARACTERS = 72
_LINE_ENDS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
# Marks and overrides of the direction of writing: one that is not closed would turn what follows the caption around.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_VTT = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_SRT = {"<": "‹", ">": "›", "{": "❴", "}": "❵"}
_ARROW = re.compile("-+>")
_NUMBER_LINE = re.compile(r"^(\d+)\n", re.MULTILINE)  # before a time, parsers take it for the number of the next cue


@dataclass(frozen=True)
class Cue:
    """Lines that are shown from one whole millisecond to another; no line is empty."""

    start_ms: int
    end_ms: int
    text: str


def cues_of(entries: Iterable[Entry], duration_s: float) -> list[Cue]:
    """Return the entries with something to show, one after the other: none overlaps the next or leaves the video.

    Of entries that overlap the one that began last is shown: as windows with a short stride do, each until the next
    begins; what is said of a long clip goes on when a shorter one inside it has ended. Those that begin in the same
    millisecond are one cue.
    """
    duration_ms = int(duration_s * 1000)
    texts: dict[int, list[str]] = {}
    ends: dict[int, int] = {}
    for entry in sorted(entries, key=lambda entry: (entry.start_s, entry.end_s)):
        lines = [clean for text in entry.texts if (clean := clean_text(text.text))]
        start_ms = round(entry.start_s * 1000)
        if lines and start_ms < duration_ms:
            told = texts.setdefault(start_ms, [])
            told += [line for line in lines if line not in told]
            end_ms = min(max(start_ms + 1, round(entry.end_s * 1000)), duration_ms)
            ends[start_ms] = max(ends.get(start_ms, 0), end_ms)
    return [Cue(start_ms, end_ms, "\n".join(texts[shown])) for start_ms, end_ms, shown in _shown(ends)]


def _shown(ends: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Return from when to when which entry is shown, by its start; `ends` has the ends by the starts, in order."""
    shown: list[tuple[int, int, int]] = []
    begun: list[int] = []
    for begin, stop in pairwise(sorted({*ends, *ends.values()})):
        if begin in ends:
            begun.append(begin)
        while begun and ends[begun[-1]] <= begin:
            begun.pop()
        if shown and begun and shown[-1][1:] == (begin, begun[-1]):
            shown[-1] = (shown[-1][0], stop, begun[-1])  # an entry below it has ended: nothing changes
        elif begun:
            shown.append((begin, stop, begun[-1]))
    return shown


def to_vtt(cues: Sequence[Cue]) -> str:
    """Return a WebVTT file."""
    blocks = ["WEBVTT"]
    for number, cue in enumerate(cues, 1):
        text = "".join(_VTT.get(character, character) for character in cue.text)
        blocks.append(f"{number}\n{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{text}")
    return "\n\n".join(blocks) + "\n"


def to_srt(cues: Sequence[Cue]) -> str:
    """Return a SubRip file."""
    blocks = []
    for number, cue in enumerate(cues, 1):
        text = _NUMBER_LINE.sub(r"\1 ", _ARROW.sub("→", cue.text))
        text = "".join(_SRT.get(character, character) for character in text)
        blocks.append(f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)


def clean_text(text: str) -> str:
    """Return text of others in lines of a readable length, without blank lines, control characters, and marks that
    change the direction of writing; text that runs from right to left stays so, by its own letters.
    """
    text = _DIRECTIONS.sub("", text)
    lines = []
    for line in _LINE_ENDS.split(text):
        visible = "".join(_visible(character) for character in line)
        lines += _wrap(visible.split())
    return "\n".join(lines)


def _visible(character: str) -> str:
    match unicodedata.category(character):
        case "Cc" | "Zs" | "Zl" | "Zp":
            return " "
        case "Cs" | "Cn":
            return "\ufffd"
        case _:
            return "" if character == "\ufeff" else character


def _wrap(words: Sequence[str]) -> list[str]:
    """Break lines between words; a longer word has a line of its own."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= _LINE_CHARACTERS:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def _time(milliseconds: int, separator: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{separator}{rest:03d}"
