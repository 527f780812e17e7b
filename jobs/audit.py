"""Ask a run which captions it learned little from: list the suspects, and better captions where there are some.

python jobs/audit.py --run runs/NAME [--captions TABLE] [--output FOLDER]      # of a run with --record.every 1
"""

from mama_ray.orchestration.audit.job import AuditJob
from mama_ray.orchestration.cluster.entry import run_job


def main(job: AuditJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.audit.run import run

    return run(job)


if __name__ == "__main__":
    run_job(AuditJob, main, description=__doc__)
