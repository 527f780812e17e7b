"""Lines that a user can do nothing about are hidden by name; everything else, and all of them on request, is shown."""

import os
import subprocess
import sys

import pytest

from mama_ray.orchestration.cluster.noise import NOISE, SHOW_ALL, is_noise

HIDDEN = [
    "WARNING x.py:85 -- Token authentication is enabled for this Ray cluster. Set RAY_AUTH_MODE=disabled to opt out.",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1 1 fork_posix.cc:71] Other threads are currently calling into gRPC, skipping fork() handlers",
    "[2026-11-28 12:54:36,015 E 1 1] core_worker.cc:2465: Actor with class name: 'MapWorker(Captioning)' and ID: "
    "'71' has constructor arguments in the object store and max_restarts > 0. If the arguments go",
    "[2026-11-28 12:54:36,015 W 1 1] x.cc:1: Failed to establish connection to the metrics exporter agent.",
    "FutureWarning: Tip: In future versions of Ray, ... set RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0",
    "  warnings.warn(",
    "/x/torch/y.py:12: FutureWarning: `z` is deprecated",
    "Fetching 12 files:  42%|####      | 5/12 [00:01<00:02,  3.1it/s]",
    "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.2s/it]",
    "Loading weights: 100%|##########| 391/391 [00:00<00:00, 2000.11it/s]",
    "model-00001-of-00003.safetensors:  12%|#1        | 500M/4.00G [00:05<00:30, 100MB/s]",
    "Triton is installed, but `triton.backends` could not be imported. Disabling Triton.",
    "[W1128 12:53:25.9 utils.cpp:68] Warning: NUMA binding: Using MEMBIND policy for memory.",
    "[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1",
]  # fmt: skip
SHOWN = [
    "INFO a: step 4 of 16 (25%), loss 2.985, 32 clips/s, 47 s left",
    "(autoscaler +5s) Error: No available node types can fulfill resource request {'GPU': 1.0}",
    "Token authentication is disabled for this Ray cluster. Anyone with network access can run arbitrary code",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "[2026-11-28 12:54:36,015 E 1 1] core_worker.cc:99: The node with node id: 1 has been marked dead",
    "WARNING loading of weights: 3 tensors are missing",
    "RuntimeError: Loading weights failed",
    "UserError: the model cannot be read",
]


@pytest.mark.parametrize("line", HIDDEN)
def test_a_line_of_the_list_is_hidden(line):
    assert is_noise(line)


@pytest.mark.parametrize("line", SHOWN)
def test_what_the_list_does_not_name_is_shown(line):
    assert not is_noise(line)


def test_every_name_of_the_list_hides_something_that_was_seen():
    import re

    for noise in NOISE:
        assert any(re.search(noise.pattern, line) for line in HIDDEN), noise.name
        assert noise.reason


PROGRAM = """
import logging, os, sys
from mama_ray.config import Config
from mama_ray.orchestration.cluster.entry import run_job

class Job(Config):
    '''A thing.'''

def run(job):
    # As compiled code does: to the descriptor itself, past Python.
    os.write(2, b"Triton is installed, but no matter\\nan error of the machine\\n")
    print("python's own line", file=sys.stderr)
    os.write(2, b"without an end")
    return "done"

run_job(Job, run, argv=[])
"""


@pytest.mark.parametrize("shows_all", [False, True])
def test_what_compiled_code_writes_is_filtered_and_comes_before_the_last_line(shows_all):
    environment = os.environ | {SHOW_ALL: "1" if shows_all else ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert ("Triton" in done.stderr) == shows_all
    assert "an error of the machine" in done.stderr
    assert "python's own line" in done.stderr


def test_what_workers_print_passes_the_filter_only_in_part(capsys):
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    from mama_ray.orchestration.cluster.noise import hide_noise

    received, kept = [], list(dispatcher.handlers)
    dispatcher.handlers = [("ray_print_logs", received.append)]
    try:
        hide_noise()
        hide_noise()  # a second time it changes nothing
        dispatcher.emit({"lines": [HIDDEN[0], SHOWN[0]], "pid": 1})
        dispatcher.emit({"lines": [HIDDEN[1]], "pid": 1})
        assert received == [{"lines": [SHOWN[0]], "pid": 1}]
        dispatcher.remove_handler("ray_print_logs")  # as Ray does at its end
        assert dispatcher.handlers == []
    finally:
        dispatcher.handlers = kept
