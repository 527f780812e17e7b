"""A lease: of two starts that write to one place, the second is refused, for as long as the first lives.

    with Lease(folder / LEASE_NAME, "caption table"):
        ...

Its holder counts up in a small file every few seconds. Whoever finds the file looks whether the process that it names
lives, where that can be seen from here; from another machine the counter is watched, by one's own monotonic clock, so
no two clocks are compared and one that is set does no harm. What is dead is taken over: at once on its own machine,
else after a minute without a sign of life.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Literal, Self

from mama_ray.errors import UserError
from mama_ray.storage.lease_file import Content, lease_file
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.this_process import ProcessIdentity, this_process

logger = logging.getLogger(__name__)

LEASE_NAME = ".lease"
_DEAD_AFTER = 6  # beats that are left out; one may be late by a slow storage
_GIVE_UP_S = 30.0  # until a holder that has lost its lease, and was told to end, is ended
_MAX_TRIES, _TRY_AGAIN_S = 40, 0.25
_LONGEST_TEXT = 100


_LOST: list["LeaseLost"] = []  # of this process, which ends with the first


class LeaseLost(UserError):
    """Another start has taken over what this one was at work on, or its folder is gone."""


class Lease:
    """A place that one start has to itself; a context manager.

    Raises UserError on entry where another start has it, and on exit where it was taken over meanwhile: then what the
    block did may be another's by now. It is not to be entered twice.
    """

    def __init__(
        self,
        place: Place,
        what: str,
        *,
        beat_s: float = 10.0,
        waits_s: float = 0.0,
        process: ProcessIdentity | None = None,
    ) -> None:
        """Name the lease's file and what it protects, for the message.

        beat_s: between two signs of life. waits_s: how long a live holder is waited for before it is refused.
        process: who holds it; None is this process.
        """
        self._place, self._what, self._beat_s, self._waits_s = place, what, beat_s, waits_s
        self._file = lease_file(place)
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._record = _Record(what, uuid.uuid4().hex, started, process or this_process())
        self._content: Content | None = None
        self._num_beats = 0
        self._lost: LeaseLost | None = None
        self._is_over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        with storage_errors(self._place.uri):
            self._place.parent.make_folder()
            self._content = self._acquire()
        self._is_main_thread = threading.current_thread() is threading.main_thread()
        self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._is_over.set()
            self._keeper.join(self._beat_s)
            if self._lost is None and not self._keeper.is_alive():  # else it waits for a storage that does not answer
                self._release()
        except BaseException:  # the interrupt by `_end_process`, where it comes only now
            if self._lost is None:
                raise
        if self._lost is not None:
            raise self._lost from None  # what came out of the block came of its being told to end

    def _acquire(self) -> Content:
        """Make the file, or take it over from a dead holder. Raises UserError where the holder lives."""
        began_s, tries = time.monotonic(), 0
        seen, seen_s = None, 0.0
        while tries < _MAX_TRIES:
            there = self._file.read()
            if there is None:
                made = self._file.create(self._data())
                if made is not None:
                    return made
                tries += 1
                time.sleep(self._soon_s)
                continue
            holder, now_s = _Record.parse(there.data), time.monotonic()
            life = self._life(holder, there, seen, now_s - seen_s)
            if seen is None and life == "unknown":
                logger.info("%s: %s; watching for %.0f s whether it lives", self._place, holder, self._dead_after_s)
            if life == "alive" and now_s - began_s >= self._waits_s:
                raise self._held(holder)
            if life == "dead":
                taken = self._file.replace(self._data(), there)
                if taken is not None:
                    logger.info("%s: taken over from a start that is gone: %s", self._place, holder)
                    return taken
                tries += 1
            if there != seen:
                seen, seen_s = there, now_s
            time.sleep(self._soon_s if life == "dead" else self._beat_s / 5)
        raise OSError(f"{self._place} cannot be made or taken over; is it a link, or a folder?")

    def _life(
        self, holder: "_Record", there: Content, seen: Content | None, unchanged_s: float
    ) -> Literal["alive", "dead", "unknown"]:
        life = holder.process.look()
        if life == "unknown" and seen is not None:
            if there != seen:
                return "alive"
            if unchanged_s > self._dead_after_s:
                return "dead"
        return life

    @property
    def _soon_s(self) -> float:
        return min(_TRY_AGAIN_S, self._beat_s / 4)

    @property
    def _dead_after_s(self) -> float:
        return _DEAD_AFTER * self._beat_s

    def _held(self, holder: "_Record") -> UserError:
        is_here = holder.process.look() == "alive"
        end = f"end it (kill {holder.process.pid})" if is_here else "end it there"
        after = "at once" if is_here else f"after {self._dead_after_s:.0f} s without a sign of life"
        return UserError(
            f"another start is at work on this {self._what}",
            got=f"{self._place.parent}: {holder}",
            remedy=f"wait for it, or {end}; where it is dead, start again: its place is taken over {after}",
        )

    def _data(self) -> bytes:
        return self._record.to_bytes(self._num_beats)

    def _keep(self) -> None:
        """Give signs of life until the block is over, or the lease is another's."""
        last_s = _clock_s()
        # In short waits: after a suspension of the machine the first thing to do is to look.
        while not self._is_over.wait(min(1.0, self._beat_s / 4)):
            if _clock_s() - last_s < self._beat_s:
                continue
            last_s = _clock_s()
            try:
                self._beat()
            except OSError as error:  # a storage that fails is told by the work itself, and comes back
                logger.debug("no sign of life for %s: %s", self._place, error)
                self._look_for_folder()
            if self._lost is not None:
                self._end_process()
                return

    def _look_for_folder(self) -> None:
        """Note that the lease is lost where its folder was taken away: another start would make it anew, and get it."""
        folder = self._place.parent
        if folder.is_local and not folder.exists():
            self._lost = LeaseLost(
                f"the folder of this {self._what} was taken away while it was at work",
                got=folder,
                remedy="put it back, then start again with the same arguments: the job goes on from what it has saved",
            )

    def _beat(self) -> None:
        """Count up; where the file is another's by now, note that the lease is lost."""
        assert self._content is not None  # it was acquired
        self._num_beats += 1
        refreshed = self._file.refresh(self._data(), self._content)
        there = None if refreshed is not None else self._file.read()
        if refreshed is None and there is None:  # deleted by hand
            refreshed = self._file.create(self._data())
            there = None if refreshed is not None else self._file.read()
        if there is not None:
            holder = _Record.parse(there.data)
            if holder.nonce != self._record.nonce:
                self._lost = LeaseLost(
                    f"another start has taken over this {self._what}, as this one gave no sign of life",
                    got=f"{self._place.parent}: {holder}",
                    remedy="let that one do the work: this one has ended",
                )
                return
            refreshed = there  # the answer to an earlier change was lost
        self._content = refreshed or self._content

    def _release(self) -> None:
        try:
            self._beat()
            if self._lost is None and self._content is not None:
                self._file.delete(self._content)
        except OSError as error:
            logger.warning("%s stays: %s", self._place, error)

    def _end_process(self) -> None:
        """Make the block end by an interrupt, which `__exit__` turns into words; where it goes on, end the process."""
        if self._lost is not None:
            _LOST.append(self._lost)
        if self._is_main_thread:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if self._is_over.wait(_GIVE_UP_S):
                return
        sys.stderr.write(f"error: {self._lost}\n")
        sys.stderr.flush()
        os._exit(1)


def lost_lease() -> LeaseLost | None:
    """Return why this process is being ended, where it is for a lease that it lost."""
    return _LOST[0] if _LOST else None


def is_left_behind(place: Place) -> bool:
    """Tell whether a lease is that of a process of this machine that is gone; False where that cannot be seen."""
    there = lease_file(place).read()
    return there is not None and _Record.parse(there.data).process.look() == "dead"


@dataclass(frozen=True)
class _Record:
    """What a lease's file says of its holder; `nonce` is of one start alone."""

    what: str
    nonce: str
    started: str
    process: ProcessIdentity

    def __str__(self) -> str:
        return f"host {self.process.host}, pid {self.process.pid}, since {self.started}"

    def to_bytes(self, num_beats: int) -> bytes:
        """Return the file's content, as long for every number of beats."""
        return json.dumps({"beat": f"{num_beats:012d}", **asdict(self)}).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> "_Record":
        """Read what anybody may have written; what cannot be read is a holder of whom nothing is known."""
        try:
            fields = json.loads(data)
            process = fields["process"]
            texts = {name: _plain(process[name]) for name in ("host", "boot", "namespace", "start")}
            who = ProcessIdentity(pid=int(process["pid"]), **texts)
            return cls(_plain(fields["what"]), _plain(fields["nonce"]), _plain(fields["started"]), who)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return cls("", "", "an unknown time", ProcessIdentity("unknown", 0))


def _plain(text: object) -> str:
    """Return text that may be shown on a terminal."""
    return "".join(letter for letter in str(text)[:_LONGEST_TEXT] if letter.isprintable())


def _clock_s() -> float:
    """Return a time that goes on while the machine is suspended, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
