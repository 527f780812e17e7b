"""The process that narrates one video for the app: a narrate job that ends with the process that started it.

    python -m mama_ray.orchestration.serving.narrate.child request.yaml    # as the app starts it

Its standard input is a pipe whose other end the app holds. When that closes, however the app ended, the job is told to
stop, and goes on with the app's next start.
"""

import os
import signal
import threading

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.narration.job import NarrateJob


def narrate_for_app(job: NarrateJob) -> str:
    """Narrate; returns the line that names the result."""
    from mama_ray.orchestration.narration.run import narrate

    threading.Thread(target=_stop_with_app, name="app-watch", daemon=True).start()
    return narrate(job)


def _stop_with_app() -> None:
    # Not through sys.stdin, whose lock a thread that waits would hold at the end of the interpreter.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run_job(NarrateJob, narrate_for_app, description=__doc__)
