"""A folder of one start, in a folder whose lease it holds.

A start that has lost its lease may still be at work when the one that took over reads its own: so each start has a
folder of its own, and takes away no other's but where it holds the lease.
"""

import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


@contextmanager
def start_folder(parent: Place, name: str) -> Iterator[Place]:
    """Give a folder while the block runs, which nobody has made yet; the caller holds the lease of `parent`.

    It is `name` with a token. Folders of that name which earlier starts left, with or without a token, are deleted.
    """
    of_starts = re.compile(rf"{re.escape(name)}(-[0-9a-f]{{12}})?")
    for info in parent.entries():
        place = parent.at(info.path)
        if of_starts.fullmatch(place.name):
            _delete(place)
    own = parent / f"{name}-{uuid.uuid4().hex[:12]}"
    try:
        yield own
    finally:
        _delete(own)


def _delete(folder: Place) -> None:
    try:
        folder.delete_folder()
    except FileNotFoundError:  # nothing was written
        return
    except OSError as error:  # where the storage is gone, the work itself tells
        logger.warning("%s stays: %s", folder, error)
