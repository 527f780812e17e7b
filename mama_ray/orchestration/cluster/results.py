"""What comes back from a Ray task: its result, or a user's error as itself."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from mama_ray.orchestration.cluster.entry import find_user_error


def result_of(task: ray.ObjectRef, *beside: ray.ObjectRef) -> Any:
    """Wait for a task and return its result; a UserError comes out as itself, without Ray's wrapping and traceback.

    beside: the task's other results, which stay in the object store. A task that fails leaves its error on them too,
    and one that nobody has looked at is logged as unhandled. Raises RayTaskError for an error that is nobody's doing.
    """
    try:
        return ray.get(task)
    except RayTaskError as error:
        for reference in beside:
            with suppress(RayTaskError):
                ray.get(reference)
        known = find_user_error(error)
        if known is None:
            raise
        raise known from None


@contextmanager
def user_errors() -> Iterator[None]:
    """Let a UserError of a task or an actor come out of the block as itself; every other error is left as it is."""
    try:
        yield
    except RayError as error:
        known = find_user_error(error)
        if known is None:
            raise
        raise known from None
