"""The folder beside the results in which an evaluation keeps what it computes, while it runs."""

import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mama_ray.storage.lease import LEASE_NAME, Lease, is_left_behind
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_FEATURES_LEASE = re.compile(rf"\.features-[0-9a-f]{{12}}{re.escape(LEASE_NAME)}")


@contextmanager
def features_folder(output: Place) -> Iterator[str]:
    """Give a folder for features while the block runs, and remove those of evaluations that were killed here.

    Many may evaluate at a time, so the lease beside each folder refuses nobody: it tells whose folder lives.
    """
    for file in output.files():
        if _FEATURES_LEASE.fullmatch(file.name) and is_left_behind(file):
            _remove(output / file.name.removesuffix(LEASE_NAME))
            with suppress(FileNotFoundError):
                file.delete_file()
    folder = output / f".features-{uuid.uuid4().hex[:12]}"
    with Lease(Place.of(f"{folder}{LEASE_NAME}"), "folder of features"):
        try:
            yield folder.uri
        finally:
            _remove(folder)


def _remove(folder: Place) -> None:
    try:
        folder.delete_folder()
    except FileNotFoundError:  # nothing was written yet
        return
    except OSError as error:
        logger.warning("features stay at %s: %s", folder, error)
