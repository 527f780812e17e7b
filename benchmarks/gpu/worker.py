"""Cases run in a process of their own: one that hangs, dies or spoils the device ends with it, and the run goes on."""

import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import Case
from benchmarks.gpu.rows import Row, one_line
from benchmarks.gpu.setting import Setting

START_S = 120  # torch and CUDA on a machine that is busy


class Worker:
    """A process that runs cases; it is started at need, and anew after an error, with its memory free again."""

    def __init__(self, setting: Setting):
        self._setting = setting
        self._process: multiprocessing.Process | None = None
        self._connection: Connection | None = None

    def facts(self, end: float) -> dict[str, object]:
        """Ask for what the machine is, until the moment `end`; the error where it does not answer."""
        try:
            connection = self._started(end)
            connection.send("facts")
            return _receive(connection, end)
        except (TimeoutError, EOFError, OSError) as error:
            return {"error": f"{type(error).__name__}, status {self.stop()}"}

    def run(self, case: Case, seconds: float, end: float) -> Iterator[Row]:
        """Yield a case's rows as they come, for `seconds` and not beyond `end`; what breaks it off is its last row.

        The start of a process is not counted as the case's time.
        """
        try:
            connection = self._started(end)
            seconds = min(seconds, end - time.monotonic())
            end = time.monotonic() + seconds
            connection.send(case)
            while True:
                found = _receive(connection, end)
                if found is None:
                    return
                yield found
                if found.verdict == "error":
                    self.stop()
                    return
        except TimeoutError:
            self.stop()
            yield Row(case.name, "error", note=f"stopped: not done after {seconds:.0f} s")
        except (EOFError, OSError):
            code = self.stop()
            yield Row(case.name, "error", note=f"the process died with status {code}")

    def stop(self) -> int | None:
        """End the process and all that it started; returns how it ended."""
        process, self._process = self._process, None
        if process is None or process.pid is None:
            return None
        process.join(1.0 if self._connection is None else 0.2)  # one that died has its own status
        code = process.exitcode
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
        process.join()
        if self._connection is not None:
            self._connection.close()
        return code

    def _started(self, end: float) -> Connection:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs, self._setting))
            self._process.start()
            theirs.close()
            _receive(self._connection, min(end, time.monotonic() + START_S))
        assert self._connection is not None
        return self._connection


def _receive(connection: Connection, end: float) -> Any:
    if not connection.poll(max(0.0, end - time.monotonic())):
        raise TimeoutError
    return connection.recv()


def serve(connection: Connection, setting: Setting) -> None:
    """Run what is asked for until nothing more is."""
    os.setsid()  # so that what a case starts can be ended with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.send("ready")
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        if asked == "facts":
            connection.send(machine_facts(setting))
            continue
        try:
            for row in asked.run(setting):
                connection.send(row)
        except Exception as error:  # whatever it is, it is a row, and the run goes on
            connection.send(Row(asked.name, "error", note=one_line(f"{type(error).__name__}: {error}")))
        else:
            connection.send(None)


def machine_facts(setting: Setting) -> dict[str, object]:
    """Return what the figures hang on."""
    import torch  # the first thing of a run that takes seconds

    facts: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "device": platform.processor() or platform.machine(),
    }
    if setting.is_gpu:
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return facts


def _driver() -> str | None:
    path = Path("/proc/driver/nvidia/version")
    return one_line(path.read_text().splitlines()[0]) if path.exists() else None
