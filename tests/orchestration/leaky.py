"""A job whose tasks print, log and raise a secret in every way that a library may, and which ends with it.

PLANTED=... python -m tests.orchestration.leaky
"""

import logging
import os
import sys
import threading
import warnings

import ray

from mama_ray.config import Config
from mama_ray.masking import masked_errors
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.entry import run_job


class LeakyJob(Config):
    """Nothing to be set."""


def run(job: LeakyJob) -> str:
    """Let the secret out on every way."""
    connect(num_cpus=2)
    uri = f"https://me:{os.environ['PLANTED']}@host/x"
    troubles = []
    calls = (
        lambda: _leak.remote(uri),
        lambda: _Leaky.remote(uri, starts=True).leak.remote(uri),
        lambda: _Leaky.remote(uri, starts=False).leak.remote(uri),
    )
    for call in calls:
        try:
            ray.get(call())
        except Exception as error:
            troubles.append(error)
    thread = threading.Thread(target=_raise, args=[uri])
    thread.start()
    thread.join()
    warnings.warn(f"warned of {uri}", stacklevel=1)
    os.write(2, f"compiled code says {uri}\n".encode())
    os.write(2, f"?sig={os.environ['PLANTED']}\n".encode())
    raise RuntimeError(f"{len(troubles)} failed at {uri}") from troubles[-1]


def _raise(uri: str) -> None:
    raise OSError(f"nobody answers at {uri}")


@ray.remote
def _leak(uri: str) -> None:
    print("printed", uri)  # noqa: T201 - as a library would
    print("printed", uri, file=sys.stderr)  # noqa: T201
    logging.getLogger("library").warning("logged %s", uri)
    try:
        _raise(uri)
    except OSError:
        logging.getLogger("mama_ray.leaky").exception("with a traceback")
    _raise(uri)


@ray.remote
class _Leaky:
    @masked_errors  # as the actors of the jobs
    def __init__(self, uri: str, *, starts: bool) -> None:
        if not starts:
            _raise(uri)

    def leak(self, uri: str) -> None:
        _raise(uri)


if __name__ == "__main__":
    run_job(LeakyJob, run, description=__doc__)
