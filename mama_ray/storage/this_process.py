"""Who a process is, so that another one on the same machine can tell later whether it still lives.

A number of a process is used again, machines of one image share their names, and containers of one machine have numbers
of their own. So a process is known by the machine's boot, the namespace of its number, the number and the moment at
which it began, in ticks since the boot: no clock that can be set is read.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_GONE = ("Z", "X")  # states of a process that has ended and of which only the number is left
_START_FIELD = 19  # of /proc/PID/stat, counted from the state, which follows the name in brackets


@dataclass(frozen=True)
class ProcessIdentity:
    """A process; boot, namespace and start are empty where the system does not tell them."""

    host: str
    pid: int
    boot: str = ""
    namespace: str = ""
    start: str = ""

    def look(self) -> Literal["alive", "dead", "unknown"]:
        """Tell whether the process lives; unknown from another machine, from another container, or without /proc."""
        if not self.start or self.pid < 1 or (self.boot, self.namespace) != (_boot(), _namespace()):
            return "unknown"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "dead"
        except (PermissionError, OverflowError):
            pass
        facts = _state_and_start(self.pid)
        if facts is None:
            return "unknown"  # it ended just now, or processes of others are hidden here
        state, start = facts
        return "alive" if start == self.start and state not in _GONE else "dead"


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return process_of(os.getpid())


def process_of(pid: int) -> ProcessIdentity:
    """Return the identity of a process of this machine; its start is empty where there is no such process."""
    facts = _state_and_start(pid)
    return ProcessIdentity(socket.gethostname(), pid, _boot(), _namespace(), facts[1] if facts else "")


def _state_and_start(pid: int) -> tuple[str, str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], fields[_START_FIELD]
    except (OSError, IndexError):
        return None


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""
