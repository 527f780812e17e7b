"""What the patterns share, and how those of a kind become one."""

import re

# Post-processing may have made some of these "video".
PICTURE = (
    r"(?:images?|pictures?|pics?|photos?|photographs?|frames?|panels?|screenshots?|snapshots?|stills?|thumbnails?)"
)


def compile_any(*patterns: str) -> re.Pattern[str]:
    """Return what finds any of the patterns, in capitals or not."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)
