"""The processes below another, for tests that kill them; each may end while it is looked at."""

import contextlib
import subprocess

import psutil


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes below one; none where it has ended."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def title(process: psutil.Process) -> str:
    """Return the command line that a process shows (Ray writes there what it does); empty for one that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill_all(processes: list[psutil.Process]) -> None:
    """SIGKILL each process that still lives."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL a process and everything below it, as a lost machine would."""
    below = descendants(process.pid)
    process.kill()
    kill_all(below)
    process.wait()


def is_gone(process: psutil.Process) -> bool:
    """Tell whether a process has ended; a zombie has."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
