"""What outlives a driver that was killed: Ray's agents, which try for a minute to tell a GCS that is gone as well.

The kernel ends most of a local Ray's processes with the driver. For the others a small process waits at a pipe, whose
other end closes with the driver, and ends them then.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MARK = "MAMA_RAY_LOCAL_RAY"  # in the environment of a local Ray's processes, and of all that they start
_WAITS_S = 2.0  # what ends by itself may do so
# Once they have given themselves names, which lie over their environment, agents are known by their numbers alone.
_WAITER = f"""
import select, sys, time, psutil
agents, driver = set(), psutil.Process().parent()
while len(agents) < 2 and not select.select([sys.stdin], [], [], 0.5)[0]:
    try:
        below = driver.children(recursive=True)
    except psutil.Error:
        break
    for process in below:
        try:
            if "Agent" in process.name() or any(word.endswith("agent.py") for word in process.cmdline()):
                agents.add(process)
        except psutil.Error:
            pass
sys.stdin.buffer.read()
time.sleep({_WAITS_S})
for process in psutil.process_iter():
    try:
        if process in agents or process.environ().get({_MARK!r}) == sys.argv[1]:
            process.kill()
    except psutil.Error:
        pass
"""
_waiters: list[subprocess.Popen] = []


@contextmanager
def ended_with_driver() -> Iterator[None]:
    """See to it that the local Ray that is started in the block ends soon after this process, however that ends."""
    mark = secrets.token_hex(8)
    _waiters[:] = [waiter for waiter in _waiters if waiter.poll() is None]
    # In a session of its own: a Ctrl-C is for the job. The list keeps the pipe's other end open.
    _waiters.append(
        subprocess.Popen([sys.executable, "-c", _WAITER, mark], stdin=subprocess.PIPE, start_new_session=True)
    )
    os.environ[_MARK] = mark
    try:
        yield
    finally:
        del os.environ[_MARK]  # what else this process starts is none of that Ray
