"""What was freed does not stay with the process: neither between pipelines nor in the arenas of ended threads."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc"
)
ROOT = Path(__file__).resolve().parents[3]
# In a process of its own: one that ran other tests before has freed memory of theirs to give back.
_PIPELINES = """
import ctypes, threading
from pathlib import Path

from mama_ray.orchestration.cluster import pipelines

NUM_BLOCKS, BLOCK_BYTES = 100_000, 1000

def private_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

def leave_freed_memory():  # all but the last block: glibc cannot shrink the thread's arena, as after a pipeline
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(ctypes.c_size_t(BLOCK_BYTES)) for _ in range(NUM_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:
        libc.free(block)

pipelines.NUMBERS_PER_PIPELINE = 1
kept, before = [], private_mb()
for _ in pipelines.runs_of(3):
    pipeline = threading.Thread(target=leave_freed_memory)
    pipeline.start()
    pipeline.join()
    kept.append(private_mb() - before)
print(NUM_BLOCKS * BLOCK_BYTES / 2**20, min(kept), private_mb() - before)
"""


def test_what_a_pipeline_freed_goes_back_to_the_system_after_it():
    freed, kept, left = (float(part) for part in output_of(_PIPELINES).split())
    assert kept > 0.5 * freed  # freed, and yet with the process
    assert left < 0.2 * freed


_ARENAS = """
import ctypes, os, sys, threading

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def allocate(everybody):
    libc.malloc(ctypes.c_size_t(100_000))
    everybody.wait()

def tell_arenas():
    libc.fdopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.fdopen(os.dup(1), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
"""
_OF_THREADS = """
from mama_ray.orchestration.cluster.freed_memory import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
everybody = threading.Barrier(6)
threads = [threading.Thread(target=allocate, args=[everybody]) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
tell_arenas()
"""
_OF_A_DRIVER = """
import ray
from mama_ray.orchestration.cluster.connect import connect

connect(num_cpus=2)
tell_arenas()
ray.shutdown()
"""


def num_arenas(program: str, how: str) -> int:
    return len(re.findall(r"<heap nr=", output_of(_ARENAS + program, how)))


def output_of(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_threads_allocate_in_one_arena():
    assert num_arenas(_OF_THREADS, "as it is") > 5  # else the test would tell nothing
    assert num_arenas(_OF_THREADS, "shared") <= 2


@pytest.mark.ray
@pytest.mark.slow
def test_rays_threads_in_a_driver_share_the_arenas_that_were_there_before():
    assert num_arenas(_OF_A_DRIVER, "shared") <= 4  # one for each thread at most that allocated while modules loaded
