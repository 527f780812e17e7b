"""A process that is told to stop and does not is ended, with its last line and all that it started."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mama_ray.orchestration.cluster.noise import FilteredStderr
from tests.orchestration.runs.training_runs import wait_until

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import signal, subprocess, sys, time
from mama_ray.orchestration.cluster.stopping import StopWatch, Terminated, kept_signals

signal.signal(signal.SIGINT, signal.default_int_handler)
watch = StopWatch(limit_s=LIMIT)
BODY
"""
# What handlers raise is lost, as in compiled code, and whoever took the signal arms an alarm that ends the process in
# the midst of its leaving, as Ray's compiled handler does.
STUBBORN = """
signal.signal(signal.SIGTERM, lambda *_: signal.alarm(1))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
is_told = False
while True:
    try:
        if not is_told:
            is_told = True
            print(child.pid, flush=True)
        time.sleep(100)
    except BaseException:
        pass
"""
TAKEN = """
with kept_signals():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
try:
    print("0", flush=True)
    time.sleep(60)
except Terminated:
    watch.leave()
    print(sorted(watch.received()), flush=True)
    sys.exit(3)
"""


def start(body: str, limit_s: float) -> tuple[subprocess.Popen, int]:
    program = PROGRAM.replace("LIMIT", str(limit_s)).replace("BODY", body)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_does_not_leave_is_ended_with_its_line_and_its_children(sent):
    process, child = start(STUBBORN, limit_s=1.5)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + sent
    assert err.startswith("stopped by ") and err.count("\n") == 1
    wait_until(lambda: is_gone(child), timeout_s=20)  # it has been killed; on busy cores it is there for a moment more


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_our_handler_is_back_after_another_took_its_place():
    process, _ = start(TAKEN, limit_s=30)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (3, f"[{signal.SIGTERM.value}]\n", "")


def test_the_stack_of_a_sigterm_is_hidden_and_that_of_a_crash_is_shown(monkeypatch, capfd):
    monkeypatch.setenv("MAMA_RAY_ALL_LINES", "0")
    prefix = "[2026-01-02 03:04:05,678 E 1 1] logging.cc:521: "
    frames = [
        "PC: @     0x7f01  (unknown)  poll",
        "    @     0x7f02         64  start_thread",
        "    @ ... and at least 3 more frames",
    ]
    lines = ["before", *(f"*** {name} received at time=1 on cpu 0 ***" for name in ("SIGTERM",)), *frames]
    lines += [prefix + line for line in lines[1:]] + ["after", "*** SIGSEGV received at time=1 on cpu 0 ***", frames[0]]
    stderr = FilteredStderr()
    os.write(2, "".join(f"{line}\n" for line in lines).encode())
    stderr.close()
    assert capfd.readouterr().err.splitlines() == ["before", *lines[-3:]]


def test_the_decoders_process_ends_with_whoever_started_it():
    reader, writer = os.pipe()  # held open here: the end of its input is not what ends it
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'mama_ray.data.video.inspection', str(1 << 33)],\n"
        "                         stdin=int(sys.argv[1]), stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(reader)], cwd=ROOT, pass_fds=[reader], stdout=subprocess.PIPE,
            check=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(done.stdout)).wait(timeout=20)
    finally:
        os.close(reader)
        os.close(writer)
