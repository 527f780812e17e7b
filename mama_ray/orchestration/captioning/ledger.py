"""Who was in the engine when it died, and how many engines there are.

A clip on which every engine dies must become an error row, not a job that never ends. An actor that dies forgets what
it was doing; this one, which does nothing else, remembers: it holds the clips in flight and those that saw a death. And
as an actor that dies says no good-bye, an engine is alive for as long as it says so.
"""

import contextlib
import threading
import time

import ray
from ray.exceptions import RayError

_BEAT_EVERY_S = 2.0  # a thousand engines make 500 calls a second, about as many as those of their batches
_SILENT_AFTER_S = 7.0  # three beats and some delay


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class CaptionLedger:
    """Counts beginnings without an end, and engines. Its own death only forgets counts."""

    def __init__(self) -> None:
        self._in_batches: set[int] = set()
        self._alone: dict[int, int] = {}
        self._heard_s: dict[str, float] = {}

    def begin_batch(self, rows: list[int]) -> bool:
        """Note that these rows go into an engine; tell whether one of them did before without coming out."""
        is_suspect = not self._in_batches.isdisjoint(rows)
        self._in_batches.update(rows)
        return is_suspect

    def begin_alone(self, row: int) -> int:
        """Note that a row goes into an engine alone; return how often it did before without coming out."""
        deaths = self._alone.get(row, 0)
        self._alone[row] = deaths + 1
        return deaths

    def end(self, rows: list[int]) -> None:
        """Note that these rows came out."""
        for row in rows:
            self._in_batches.discard(row)
            self._alone.pop(row, None)

    # These two tell of a moment: where it is gone by, Ray need not try again, as it does with what else is told here.
    @ray.method(max_task_retries=0)
    def beat(self, engine: str) -> None:
        """Note that an engine is alive."""
        self._heard_s[engine] = time.monotonic()

    @ray.method(max_task_retries=0)
    def num_engines(self) -> int:
        """Return how many engines said of late that they are alive."""
        oldest = time.monotonic() - _SILENT_AFTER_S
        self._heard_s = {engine: heard for engine, heard in self._heard_s.items() if heard > oldest}
        return len(self._heard_s)


def keep_beating(ledger: ray.actor.ActorHandle, engine: str) -> None:
    """Tell the ledger from now on that an engine is alive, for as long as this process is."""

    def beat() -> None:
        while True:
            # What tells of an engine must not end it; a ledger that is gone for good means that the job is over.
            with contextlib.suppress(RayError):
                ledger.beat.remote(engine)
            time.sleep(_BEAT_EVERY_S)

    threading.Thread(target=beat, name="engine-beat", daemon=True).start()
