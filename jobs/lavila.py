"""All of LaViLa in one job: a narrator learns from human pairs, narrates the rest, and dual encoders learn from both.

python jobs/lavila.py [configs/lavila/NAME.yaml] --storage URI

Without arguments it runs on the embedded corpus, of which people told one clip in five.
"""

from mama_ray.experiments.lavila.job import LavilaJob
from mama_ray.orchestration.cluster.entry import run_job


def main(job: LavilaJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.experiments.lavila.run import run_lavila

    return run_lavila(job)


if __name__ == "__main__":
    run_job(LavilaJob, main, description=__doc__)
