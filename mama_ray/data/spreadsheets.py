"""Text of others in a CSV that a spreadsheet may open."""

import re

_FORMULA_STARTS = ("=", "+", "-", "@")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


def inert_cell(text: str, max_characters: int | None = None) -> str:
    """Return a text as one line that no spreadsheet takes for a formula; longer ones are cut."""
    text = _UNPRINTABLE.sub(" ", text)[:max_characters]
    return f"'{text}" if text.lstrip().startswith(_FORMULA_STARTS) else text
