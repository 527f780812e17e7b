"""Errors that a user can put right, in one form: what, what was got, what was wanted, the remedy.

A job ends with the text of one of these as its last line, so the text is always a single line, without secrets.
"""

import difflib
import re
from collections.abc import Iterable

from mama_ray.masking import mask_text

_LONGEST_VALUE = 300
# What moves a terminal's cursor, colours it or turns its text around, and halves of surrogate pairs.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """A mistake in what the user gave (a path, a name, a value, a file), told so that it can be put right."""

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        wanted: object = None,
        remedy: str | None = None,
        is_wanted_whole: bool = False,
    ):
        """Join the parts to one line; a part that is None is left out, a long `got` or `wanted` is cut.

        is_wanted_whole: `wanted` is a list of ours, which is told to its end.
        """
        limits = {"got": _LONGEST_VALUE, "wanted": None if is_wanted_whole else _LONGEST_VALUE}
        facts = [
            f"{label} {_one_line(value, limits[label])}"
            for label, value in (("got", got), ("wanted", wanted))
            if value is not None
        ]
        text = ": ".join([_one_line(what, limit=None), ", ".join(facts)] if facts else [_one_line(what, limit=None)])
        # The joined text is the only argument: an exception is unpickled by calling its class with `args`, and
        # these cross from Ray's workers to the driver.
        super().__init__(mask_text(text if remedy is None else f"{text}; {_one_line(remedy, limit=None)}"))


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among the known ones; it lists them, the nearest first.

    `kind` says what is named, e.g. "preset" or "benchmark".
    """
    names = list(dict.fromkeys(known))
    nearest = nearest_names(name, names)
    listed = nearest + [other for other in names if other not in nearest]
    return UserError(
        f"unknown {kind}",
        got=name,
        wanted=f"one of {', '.join(listed)}" if listed else "nothing: none is known",
        remedy=f"did you mean {nearest[0]}?" if nearest else None,
        is_wanted_whole=True,
    )


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that `name` may be a slip of, the nearest first; none where nothing is near."""
    names = list(known)
    by_folded = {other.lower().replace("-", "_"): other for other in names}
    folded = str(name).lower().replace("-", "_")
    return [by_folded[match] for match in difflib.get_close_matches(folded, by_folded, n=3, cutoff=0.6)]


def printable(text: str) -> str:
    """Return text of others so that a terminal shows it and does nothing else: control characters are spelt out."""
    return _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def _one_line(value: object, limit: int | None = _LONGEST_VALUE) -> str:
    # Masked before it is cut: half a URI hides where its password ends.
    text = printable(mask_text(" ".join(str(value).split())))
    return text if limit is None or len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
