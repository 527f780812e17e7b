"""One line of the result: a check with its bound, a figure, or the reason why there is neither."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "failed", "measured", "not available", "error", "not run"]


@dataclass(frozen=True)
class Row:
    """What was seen. A check holds where its value is at most its bound; NaN never is."""

    name: str
    verdict: Verdict
    value: float | None = None
    unit: str = ""
    bound: float | None = None
    note: str = ""


def check(name: str, value: float, bound: float, note: str = "") -> Row:
    """Compare an error with its bound."""
    return Row(name, "ok" if value <= bound else "failed", float(value), "", bound, note)


def figure(name: str, value: float, unit: str = "", note: str = "") -> Row:
    """Tell a measured number."""
    return Row(name, "measured", float(value), unit, None, note)


def absent(name: str, reason: str) -> Row:
    """Say why there is no number."""
    return Row(name, "not available", note=one_line(reason))


def one_line(text: object, most: int = 200) -> str:
    """Return the first words of a message without its line breaks."""
    words = " ".join(str(text).split())
    return words if len(words) <= most else words[: most - 3] + "..."
