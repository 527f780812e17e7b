"""What the patterns share, and how those of a kind become one."""

import re
from functools import cached_property

# Post-processing may have made some of these "video".
PICTURE = (
    r"(?:images?|pictures?|pics?|photos?|photographs?|frames?|panels?|screenshots?|snapshots?|stills?|thumbnails?)"
)


class AnyOf:
    """Finds any of some patterns, in capitals or not; compiled when first asked, as most processes never do."""

    def __init__(self, *patterns: str) -> None:
        self._patterns = patterns

    def search(self, text: str) -> re.Match[str] | None:
        """Return the first place that fits a pattern, or None."""
        return self._compiled.search(text)

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{pattern})" for pattern in self._patterns), re.IGNORECASE)
