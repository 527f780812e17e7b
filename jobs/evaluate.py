"""Evaluate a checkpoint on a benchmark: recall both ways, by topic, with the protocol beside the numbers.

python jobs/evaluate.py --checkpoint URI --benchmark NAME --shards URI      # writes evaluation/<benchmark>.json
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.evaluation.job import EvaluateJob


def main(job: EvaluateJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.evaluation.run import run

    return run(job)


if __name__ == "__main__":
    run_job(EvaluateJob, main, description=__doc__)
