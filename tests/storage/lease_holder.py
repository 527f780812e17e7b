"""A process that holds a lease until it is killed, or asked to end by a line on its standard input.

    python -m tests.storage.lease_holder URI BEAT_S [HOST]      # with HOST as if on another machine

It says `held` when it has the lease; what it ends with comes on stderr.
"""

import os
import subprocess
import sys
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.storage.lease import Lease
from mama_ray.storage.places import Place
from mama_ray.storage.this_process import ProcessIdentity, this_process

ROOT = Path(__file__).resolve().parents[2]


def hold(place: Place, beat_s: float, host: str | None = None) -> subprocess.Popen:
    """Start such a process, and return it when it has the lease."""
    process = contend(place, beat_s, host)
    assert process.stdout.readline() == "held\n", process.stderr.read()
    return process


def contend(place: Place, beat_s: float, host: str | None = None) -> subprocess.Popen:
    """Start such a process."""
    command = [sys.executable, "-m", "tests.storage.lease_holder", place.uri, str(beat_s), *([host] if host else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def on_another_machine(host: str) -> ProcessIdentity:
    """Return this process as it would be told by a machine of another name and boot."""
    return ProcessIdentity(host, os.getpid(), boot=f"boot of {host}", namespace="1", start=this_process().start)


def main(uri: str, beat_s: str, host: str | None = None) -> None:
    try:
        identity = None if host is None else on_another_machine(host)
        with Lease(Place.of(uri), "place of a test", beat_s=float(beat_s), process=identity):
            sys.stdout.write("held\n")
            sys.stdout.flush()
            sys.stdin.readline()
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
