"""Open the app on a corpus: search it, narrate videos, see and mend what the weights say.

    python jobs/app.py --shards URI --run RUN --narrator DIR     # then open the address that it prints

Without arguments it opens on the embedded corpus. It stops by Ctrl-C and goes on where it was when it is started again.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.serving.job import AppJob


def main(job: AppJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.serving.run import serve

    return serve(job)


if __name__ == "__main__":
    run_job(AppJob, main, description=__doc__)
