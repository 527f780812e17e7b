"""Telling of what takes long: that it has begun, that it still goes on, and how long it took."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def told_wait(what: str, *, after_s: float = 0.0, every_s: float = 30.0) -> Iterator[None]:
    """Log that `what` is being done while the block runs: at `after_s`, every `every_s` from then on, and at its end.

    What is over before `after_s`, such as the download of a model that is in the cache, is not told. Where the block
    raises, its end is not told either: the error is.
    """
    began, is_over = time.monotonic(), threading.Event()
    told: list[float] = []

    def tell() -> None:
        seconds = time.monotonic() - began
        logger.info("%s%s", what, f": {seconds:.0f} s so far" if told else " ...")
        told.append(seconds)

    def watch() -> None:
        wait_s = every_s if told else after_s
        while not is_over.wait(wait_s):
            tell()
            wait_s = every_s

    if after_s <= 0:  # before anything that the block itself may log
        tell()
    watcher = threading.Thread(target=watch, name="told-wait", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
    if told:
        logger.info("%s: done in %.0f s", what, time.monotonic() - began)
