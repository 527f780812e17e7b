"""Reading again when a storage fails for a moment: object stores do, by the hour."""

import time
from collections.abc import Callable
from typing import TypeVar

_ATTEMPTS = 4
_Result = TypeVar("_Result")


def with_retries(read: Callable[[], _Result], attempts: int = _ATTEMPTS) -> _Result:
    """Call `read`, again after 1, 2, 4 ... seconds when the storage fails; a missing file is not tried again."""
    for attempt in range(attempts):
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError:
            if attempt == attempts - 1:
                raise
            time.sleep(2**attempt)
    raise AssertionError("unreachable")
