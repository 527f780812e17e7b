"""Trying again when a storage fails for a moment: object stores do, by the hour."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

_ATTEMPTS = 4
_FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # a disk that is full or read-only stays so
_Result = TypeVar("_Result")


def with_retries(work: Callable[[], _Result], attempts: int = _ATTEMPTS) -> _Result:
    """Call `work`, again after 1, 2, 4 ... seconds when the storage fails.

    What time does not mend is not tried again: a missing file, a lack of permission, a full disk. `work` may be done
    twice, as the answer to what a store did can be lost.
    """
    for attempt in range(attempts):
        try:
            return work()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError as error:
            if attempt == attempts - 1 or error.errno in _FINAL:
                raise
            time.sleep(2**attempt)
    raise AssertionError("unreachable")
