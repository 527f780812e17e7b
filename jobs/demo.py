"""Show the method at work: one noisy corpus, four ways to learn from it, one table and one report page.

python jobs/demo.py --storage URI
"""

from mama_ray.experiments.demo.job import DemoJob
from mama_ray.orchestration.cluster.entry import run_job


def main(job: DemoJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.experiments.demo.run import run_demo

    return run_demo(job)


if __name__ == "__main__":
    run_job(DemoJob, main, description=__doc__)
