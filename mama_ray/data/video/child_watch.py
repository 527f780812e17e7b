"""What becomes of a child that decodes, and of whom it tells: of the video, or of the machine.

A video is refused for what it costs, which is CPU time and memory, and for a crash. A child that stands still waits for
a disk, or was stopped; one that was killed without having much memory was in the way of others.
"""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from mama_ray.data.video.container import DecodeError

LOOK_S = 0.25  # between two looks: memory grows by less than a GiB meanwhile
_LEAST_CPU = 0.01  # of the time that a child may stand still, within which it must have used so much
_HEAVY_BYTES = 1 << 30  # what few videos need, those of 8K
_DEATHS, _KILLS = 2, 4  # after which nothing else is to be expected
_TICKS_PER_S, _PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_Answer = TypeVar("_Answer")


class ChildDied(Exception):
    """The child ended without an answer; the text says how. `is_in_the_way`: it was killed, and not for its memory.
    `by_itself`: with a status, as where this process is being ended and has closed its pipes; a decoder that crashes
    ends by a signal.
    """

    def __init__(self, how: str, *, is_in_the_way: bool = False, by_itself: bool = False) -> None:
        super().__init__(how)
        self.is_in_the_way, self.by_itself = is_in_the_way, by_itself


class Watch:
    """Looks at a child while its answer is waited for.

    Attributes:
        peak_bytes: most memory that it was seen to have.
    """

    def __init__(self, child: subprocess.Popen, limit_s: float) -> None:
        self._child, self._limit_s = child, limit_s
        self._cpu_s, self.peak_bytes = _usage_of(child.pid)
        self._num_idle = 0

    def look(self) -> None:
        """Look once more, LOOK_S later. Raises TimeoutError where the child has stood still for the limit.

        Looks are counted: a machine that was suspended makes one of them long.
        """
        cpu_s, resident_bytes = _usage_of(self._child.pid)
        self.peak_bytes = max(self.peak_bytes, resident_bytes)
        self._num_idle += 1
        if cpu_s - self._cpu_s >= _LEAST_CPU * self._limit_s:
            self._cpu_s, self._num_idle = cpu_s, 0
        elif self._num_idle * LOOK_S > self._limit_s:
            raise TimeoutError


def death_of(child: subprocess.Popen, peak_bytes: int = 0) -> ChildDied:
    """Return how a child ended, of which the most memory is known that it had."""
    code = child.returncode
    if code is None or code >= 0:
        return ChildDied(f"exit status {code}", by_itself=True)
    is_in_the_way = code == -signal.SIGKILL and peak_bytes < _HEAVY_BYTES
    return ChildDied(signal.Signals(-code).name, is_in_the_way=is_in_the_way)


def ask_again(ask: Callable[[], _Answer]) -> _Answer:
    """Return what a child answers, asked again if it dies: it may have, through no fault of the video.

    Raises DecodeError where it dies of the video, and OSError where the machine has no room for it.
    """
    num_deaths = 0
    while True:
        try:
            return ask()
        except ChildDied as death:
            num_deaths += 1
            if num_deaths == (_KILLS if death.is_in_the_way or death.by_itself else _DEATHS):
                raise _verdict(death) from death
            time.sleep(2 ** (num_deaths - 2) if num_deaths > 1 else 0)


def _verdict(death: ChildDied) -> Exception:
    if death.is_in_the_way:
        return OSError(errno.ENOMEM, f"the process that decodes was killed {_KILLS} times ({death})")
    return DecodeError(f"the decoder crashed ({death})")


def _usage_of(process_id: int) -> tuple[float, int]:
    """Return the CPU seconds that a process has used and the bytes of memory that it has; 0 when it is gone."""
    try:
        with open(f"/proc/{process_id}/stat", encoding="utf-8", errors="replace") as file:
            facts = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0
    return (int(facts[11]) + int(facts[12])) / _TICKS_PER_S, int(facts[21]) * _PAGE_BYTES
