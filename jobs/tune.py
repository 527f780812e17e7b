"""Search a training job's settings, or compare named variants of it (an ablation).

    python jobs/tune.py [configs/sweep/NAME.yaml] --storage URI --run NAME     # again with the same two: resumes

Without arguments it searches margin and learning rates on the embedded corpus, which is made on first use.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.sweep.job import SweepJob


def main(job: SweepJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.sweep.run import sweep

    return sweep(job)


if __name__ == "__main__":
    run_job(SweepJob, main, description=__doc__)
