"""What outlives a driver that was killed: Ray's agents, which try for a minute to tell a GCS that is gone as well.

The kernel ends a local Ray's other processes with the driver. For the agents a small process waits at a pipe, whose
other end closes with the driver, and ends them then.
"""

import subprocess
import sys

import psutil

_AGENT = "Agent"  # as they call themselves: ray::DashboardAgent, ray::RuntimeEnvAgent
_WAITS_S = 2.0  # where the driver leaves in peace, its Ray ends them by itself
_WAITER = f"""
import sys, time, psutil
sys.stdin.buffer.read()
time.sleep({_WAITS_S})
for word in sys.argv[1:]:
    number, _, began = word.partition(":")
    try:
        process = psutil.Process(int(number))
        if process.create_time() == float(began):
            process.kill()
    except psutil.Error:
        pass
"""
_waiters: list[subprocess.Popen] = []


def end_agents_with_driver() -> None:
    """See to it that the agents of the Ray that this process has just started end soon after it, however it ends."""
    agents = [process for process in psutil.Process().children(recursive=True) if _is_agent(process)]
    told = [f"{agent.pid}:{agent.create_time()!r}" for agent in agents]
    # In a session of its own: a Ctrl-C is for the job. The list holds the pipe's other end.
    _waiters[:] = [waiter for waiter in _waiters if waiter.poll() is None]
    _waiters.append(
        subprocess.Popen([sys.executable, "-c", _WAITER, *told], stdin=subprocess.PIPE, start_new_session=True)
    )


def _is_agent(process: psutil.Process) -> bool:
    try:
        return _AGENT in " ".join([process.name(), *process.cmdline()[:1]])
    except psutil.Error:
        return False
