"""Train a dual encoder on shards with the angular margin and meta-learned sample weights.

    python jobs/train.py [configs/train/NAME.yaml] --storage URI --run NAME     # again with the same two: resumes

Without arguments it trains on the embedded corpus, which is made on first use.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.training.job import TrainJob


def main(job: TrainJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.training.run import train

    return train(job)


if __name__ == "__main__":
    run_job(TrainJob, main, description=__doc__)
