"""Trying again when a storage fails for a moment: object stores do, by the hour."""

import time
from collections.abc import Callable
from typing import TypeVar

from mama_ray.storage.failures import LASTING, as_storage_error

_ATTEMPTS = 4
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
            known = as_storage_error(error)
            if attempt == attempts - 1 or (known is not None and known.errno in LASTING):
                raise
            time.sleep(2**attempt)
    raise AssertionError("unreachable")
