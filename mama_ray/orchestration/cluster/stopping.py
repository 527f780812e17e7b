"""How a job that is told to stop ends: soon, with its own last line, and with all that it started.

Three things may keep it. Ray's compiled code takes SIGTERM, prints a stack and has the process aborted after 3 s; what
a handler raises is lost in compiled code, or waits until that returns; and the end of Ray's processes may hang. So a
thread is told of every signal by Python's wakeup descriptor, whoever handles it, and ends a job whose time is over.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import psutil

from mama_ray.errors import printable
from mama_ray.masking import mask_text

STOPPED = 128  # plus the signal's number, as shells count it
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
# Of the 10 s in which a job is to be gone; the rest is for a machine that is busy.
_LIMIT_S = 7.0
_POLL_S = 0.5
_RESUMES = "started again with the same arguments, a job goes on from what it has saved"


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived.

    One of Ctrl-C's kind: what else a handler raises while Ray's compiled code waits, Ray prints and forgets.
    """


def stop_line(signum: int) -> str:
    """Return the last line of a job that a signal has stopped."""
    return f"stopped by {'SIGTERM' if signum == signal.SIGTERM else 'Ctrl-C'}; {_RESUMES}"


class StopWatch:
    """Remembers which signals have arrived, whoever handles them, and ends a process that does not leave in time.

    ray.init() and Ray Train put their own handlers in the place of ours and of Python's; what they raise passes Ray's
    compiled code and comes out of a job as a SystemExit that has lost its code.
    """

    def __init__(self, limit_s: float = _LIMIT_S, *, why: Callable[[], Exception | None] = lambda: None) -> None:
        """Take SIGTERM, as Terminated in the main thread, and begin to watch; to be called in the main thread.

        why: returns what made this process send itself the signal; None where somebody else has sent it.
        """
        self._why = why
        self._arrived: set[int] = set()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._below: list[psutil.Process] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, _raise_terminated)
        threading.Thread(target=self._watch, args=(limit_s,), name="stop-watch", daemon=True).start()

    def received(self) -> set[int]:
        """Return the numbers of the signals to stop that have arrived."""
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                self._arrived |= set(self._reader.recv(1 << 16)) & _SIGNALS
            if self._arrived:
                signal.alarm(0)  # Ray's, after which the process would be aborted
            return set(self._arrived)

    def leave(self) -> None:
        """Let no signal break off the leaving, though a first one bounds it. To be called in the main thread."""
        for signum in _SIGNALS:
            signal.signal(signum, lambda *_: None)  # not SIG_IGN, of which the thread would not hear

    def cancel(self) -> None:
        """Watch no more: the last line is written."""
        self._is_over.set()

    def end_processes(self) -> None:
        """SIGKILL what this process has started, and what that has started, and still lives."""
        for process in {*self._below, *_processes_below()}:
            with contextlib.suppress(psutil.Error):  # it has ended, and its number may be another's by now
                process.kill()

    def _watch(self, limit_s: float) -> None:
        while not (arrived := self.received()):
            select.select([self._reader], [], [], _POLL_S)
        # Now, for the workers of a raylet that ends are nobody's children any more.
        self._below = _processes_below()
        if not self._is_over.wait(limit_s):
            self._end_at_once(signal.SIGTERM if signal.SIGTERM in arrived else signal.SIGINT)

    def _end_at_once(self, signum: int) -> NoReturn:
        self.end_processes()
        error = self._why()
        line = stop_line(signum) if error is None else f"error: {error}"
        # Not through the stream: the main thread may hold its lock for ever.
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), f"{printable(mask_text(line))}\n".encode())
        os._exit(STOPPED + signum if error is None else 1)


@contextlib.contextmanager
def kept_signals():
    """Put our own handler of SIGTERM back after a start of Ray, which takes it in Python and again in compiled code.

    Where there is none of ours, as in a program that uses this package, Ray's stay.
    """
    ours = signal.getsignal(signal.SIGTERM) is _raise_terminated
    try:
        yield
    finally:
        if ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _raise_terminated)


def _processes_below() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


def _raise_terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
