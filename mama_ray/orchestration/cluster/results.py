"""What comes back from a Ray task: its result, or a user's error as itself."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from mama_ray.orchestration.cluster.entry import find_user_error

_TASKS_AHEAD = 1024  # more than a cluster of 500 CPUs runs at a time, two tasks to a CPU
_Task = TypeVar("_Task")


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


def some_at_once(tasks: Iterable[_Task]) -> Iterator[_Task]:
    """Yield tasks in their order, which a generator submits: a bounded number is ahead of the one that was yielded.

    The driver keeps some kilobytes for every task of which it holds a reference.
    """
    ahead: deque[_Task] = deque()
    for task in tasks:
        ahead.append(task)
        if len(ahead) == _TASKS_AHEAD:
            yield ahead.popleft()
    yield from ahead


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
