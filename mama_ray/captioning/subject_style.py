"""Who does it: Ego4D's marks of subjects, kept, or written as people would, by rules that can be undone.

Narrators that learned from Ego4D write "#C C picks up a cup" of the one who wears the camera and "#O a man X walks" of
others. The letters of others (X, Y, B) mean nothing beyond their own sentence: the same man is X in one window and Y in
the next (LLoVi's issue 11). Text without such marks is left as it is. Every change is recorded, so that the raw text
can be had back.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

SubjectStyle = Literal["keep", "c_only", "person"]

_PEOPLE = "man|woman|lady|person|boy|girl|child|kid|baby|guy|player|friend|people|men|women|worker|individual|dog|cat"
# A letter behind an article or before a hyphen names a thing: a C clamp, the T-shirt, an L-key.
_NOT_OF_A_THING = r"(?<!\b[Aa]\s)(?<!\b[Aa]n\s)(?<!\b[Tt]he\s)(?<!itamin\s)"
# Of a text with marks, from left to right. "A" is an article and "I" a pronoun more often than a letter of somebody.
_MARKS = re.compile(
    rf"(?P<wearer>\A\s*#\s*[Cc]\s+(?:[Cc]\s+)?)"
    rf"|(?P<someone>\A\s*#\s*[Oo]\s+(?:[BD-HJ-Z]\b))"
    rf"|(?P<other>\A\s*#\s*[Oo]\s+)"
    rf"|\b(?P<noun>{_PEOPLE})(?P<letter>\s+[ABD-Z])\b"
    rf"|(?P<unsure>#\s*unsure\b)"
    rf"|(?P<bare>(?<=\s){_NOT_OF_A_THING}(?:[BD-HJ-Z])\b(?=['’]s\b|(?!['’.-]?\w)))"
    rf"|(?P<c>{_NOT_OF_A_THING}\bC\b(?!-\w))"
)
_IS_MARKED = re.compile(r"\A\s*(?:#\s*[CcOo]\s+\S|C\s+[a-z])")
_WEARER = "the camera wearer"


@dataclass(frozen=True)
class Edit:
    """A stretch of the new text, and what stood there: `text[start : start + len(new)]` was `old`."""

    start: int
    new: str
    old: str


@dataclass(frozen=True)
class Styled:
    """A text in a style, with what was changed, in order."""

    text: str
    edits: tuple[Edit, ...] = ()

    def raw(self) -> str:
        """Return the text as it was."""
        parts, place = [], 0
        for edit in self.edits:
            parts += [self.text[place : edit.start], edit.old]
            place = edit.start + len(edit.new)
        return "".join([*parts, self.text[place:]])


def restyle(text: str, style: SubjectStyle) -> Styled:
    """Return a caption in a style.

    keep: as it is. c_only: "C" is the wearer, marks and the letters of others go ("#O a man X walks" is "a man walks",
    "#O X walks" is "someone walks"). person: likewise, and the wearer is "the camera wearer".
    """
    if style == "keep" or not _IS_MARKED.match(text):
        return Styled(text)
    wearer = "C" if style == "c_only" else _WEARER
    edits, shift = list[Edit](), 0

    def replace(found: re.Match) -> str:
        nonlocal shift
        new = _written(found, wearer)
        if new != found[0]:
            edits.append(Edit(found.start() + shift, new, found[0]))
            shift += len(new) - len(found[0])
        return new

    return Styled(_MARKS.sub(replace, text), tuple(edits))


def _written(found: re.Match, wearer: str) -> str:
    rules: dict[str, Callable[[], str]] = {
        "wearer": lambda: f"{wearer} ",
        "someone": lambda: "someone",
        "other": lambda: "",
        "noun": lambda: found["noun"],
        "unsure": lambda: "something",
        "bare": lambda: "someone",
        "c": lambda: wearer,
    }
    return next(rule() for name, rule in rules.items() if found[name] is not None)
