"""A narrate job as a process of its own group, which may be told to stop, be killed or die without harm to the app."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil

from mama_ray.storage.this_process import ProcessIdentity, process_of

_MODULE = "mama_ray.orchestration.serving.narrate.child"
_LEAVES_S = 12.0  # a job that is told to stop is gone within 10 s
_POLL_S = 0.2


class NarrateProcess:
    """A narrate job that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiter = asyncio.create_task(process.wait())
        self.identity = process_of(process.pid)

    @classmethod
    async def start(cls, request: Path, log: Path) -> "NarrateProcess":
        """Start the job of a config file; what it says goes to the end of `log`. Raises OSError."""
        with log.open("ab") as stream:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", _MODULE, str(request), stdin=asyncio.subprocess.PIPE, stdout=stream,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return cls(process)

    async def ends_within(self, seconds: float) -> bool:
        """Wait for its end, but no longer."""
        done, _ = await asyncio.wait({self._waiter}, timeout=seconds)
        return bool(done)

    @property
    def returncode(self) -> int:
        """Its status, once it has ended; negative is the signal that ended it."""
        return self._waiter.result()

    async def stop(self, within_s: float) -> None:
        """Tell it to stop, and see to it that it does, with all that it has started."""
        below = _below(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        if not await self.ends_within(within_s):
            self.kill()
            await self._waiter
        kill_group(self._process.pid, below)

    def kill(self) -> None:
        """End it at once, and what it has started."""
        kill_group(self._process.pid, _below(self._process.pid))

    def end_rest(self) -> None:
        """End what is left of its group when it has died by itself."""
        kill_group(self._process.pid, [])


async def end_left_over(process: ProcessIdentity | None) -> None:
    """See to it that the process of an app that was killed is gone, before its job is started again.

    One that cannot be seen from here, as it is another container's, is not waited for: nothing here could end it.
    """
    if process is None:
        return
    for _ in range(int(_LEAVES_S / _POLL_S)):
        if process.look() != "alive":
            return
        await asyncio.sleep(_POLL_S)
    kill_group(process.pid, _below(process.pid))


def kill_group(pid: int, below: list[psutil.Process]) -> None:
    """SIGKILL the process group that a process leads, and processes below it that have groups of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in below:
        with contextlib.suppress(psutil.Error):  # which looks whether the number is another's by now
            process.kill()


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
