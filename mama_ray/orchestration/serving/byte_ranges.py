"""What a Range header asks for (RFC 9110, section 14): one range of bytes; several at once are not served in parts."""

import re
from typing import Final

UNSATISFIABLE: Final = (0, 0)
"""What `parse_range` returns for a range that lies wholly beyond the end."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE | re.ASCII)


def parse_range(header: str | None, num_bytes: int) -> tuple[int, int] | None:
    """Return [start, stop) of the range that is asked for, cut where the content ends.

    None where all is wanted: without a header, and for what is no valid single range of bytes, which is to be ignored.
    """
    found = _RANGE.fullmatch("".join(header.split())) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last so many
        count = min(int(found[2]), num_bytes)
        return (num_bytes - count, num_bytes) if count else UNSATISFIABLE
    start = int(found[1])
    last = int(found[2]) if found[2] else num_bytes - 1
    if found[2] and last < start:
        return None
    return (start, min(last + 1, num_bytes)) if start < num_bytes else UNSATISFIABLE
