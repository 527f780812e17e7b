"""Who was in the engine when it died, and how many engines there are.

A clip on which every engine dies must become an error row, not a job that never ends. An actor that dies forgets what
it was doing; this one, which does nothing else, remembers: it holds the clips in flight and those that saw a death. And
as an actor that dies says no good-bye, an engine is alive for as long as it says so. One that dies again and again and
writes nothing in between is no clip's fault: its deaths are counted, too.
"""

import contextlib
import threading
import time
from dataclasses import dataclass, field

import ray
from ray.exceptions import RayError

_BEAT_EVERY_S = 2.0  # a thousand engines make 500 calls a second, about as many as those of their batches
_SILENT_AFTER_S = 7.0  # three beats and some delay
_NO_WORDS = "its process ended without a word, as when memory runs out"


@dataclass
class _Engine:
    """An engine, in one process after the other.

    Attributes:
        node: where it was started last.
        deaths: since it last wrote a caption, those of lost nodes left out.
        words: the last of its present process, "" while it lives.
        alone: the row that went into it alone last.
        condemned: rows that were given up since it last wrote a caption.
    """

    node: str
    deaths: int = 0
    words: str = ""
    alone: int | None = None
    condemned: set[int] = field(default_factory=set)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class CaptionLedger:
    """Counts beginnings without an end, and engines. Its own death only forgets counts."""

    def __init__(self) -> None:
        self._in_batches: set[int] = set()
        self._alone: dict[int, int] = {}
        self._words: dict[int, str] = {}
        self._engines: dict[str, _Engine] = {}
        self._heard_s: dict[str, float] = {}

    def start(self, engine: str, node: str) -> tuple[int, str]:
        """Note that an engine starts, on this node; return how often it died since it last wrote a caption, and the
        last words of its last process."""
        known = self._engines.get(engine)
        if known is None:
            self._engines[engine] = _Engine(node)
            return 0, ""
        row, words = known.alone, known.words or _NO_WORDS
        is_lost = _is_lost(known.node)  # which is no fault of what was in it
        known.deaths += not is_lost
        if row is not None and row in self._alone:
            self._alone[row] -= is_lost
            self._words[row] = words
        known.node, known.words, known.alone = node, "", None
        return known.deaths, words

    def tell_death(self, engine: str, words: str) -> None:
        """Note why an engine's process is about to end."""
        if known := self._engines.get(engine):
            known.words = known.words or words

    def begin_batch(self, rows: list[int]) -> bool:
        """Note that these rows go into an engine; tell whether one of them did before without coming out."""
        is_suspect = not self._in_batches.isdisjoint(rows)
        self._in_batches.update(rows)
        return is_suspect

    def begin_alone(self, row: int, engine: str) -> tuple[int, str]:
        """Note that a row goes into an engine alone; return how often it did before without coming out, and the last
        words of the engine that it was in."""
        deaths = self._alone.get(row, 0)
        self._alone[row] = deaths + 1
        if known := self._engines.get(engine):
            known.alone = row
        return deaths, self._words.get(row, _NO_WORDS)

    def give_up(self, row: int, engine: str) -> None:
        """Note that a row becomes an error, as engines die of it."""
        if known := self._engines.get(engine):
            known.alone = None
            known.condemned.add(row)

    def end(self, rows: list[int], engine: str | None = None) -> None:
        """Note that these rows came out; of an engine that is named, with captions."""
        for row in rows:
            self._in_batches.discard(row)
            self._alone.pop(row, None)
            self._words.pop(row, None)
        if known := self._engines.get(engine or ""):
            known.deaths, known.alone = 0, None
            known.condemned.clear()

    def unproven(self) -> list[int]:
        """Return the rows that were given up by engines which have written nothing since."""
        return sorted(set[int]().union(*(known.condemned for known in self._engines.values())))

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


def _is_lost(node: str) -> bool:
    return not any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def keep_beating(ledger: ray.actor.ActorHandle, engine: str) -> None:
    """Tell the ledger from now on that an engine is alive, for as long as this process is."""

    def beat() -> None:
        while True:
            # What tells of an engine must not end it; a ledger that is gone for good means that the job is over.
            with contextlib.suppress(RayError):
                ledger.beat.remote(engine)
            time.sleep(_BEAT_EVERY_S)

    threading.Thread(target=beat, name="engine-beat", daemon=True).start()
