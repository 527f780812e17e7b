"""Turn videos and annotations into shards and an index, or index foreign WebDataset shards in place.

    python jobs/prepare.py --videos DIR_OR_URI --annotations FILE --output URI
    python jobs/prepare.py --shards URI

Without arguments it makes the embedded corpus and prepares that.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.prepare.job import PrepareJob


def main(job: PrepareJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.prepare.run import run

    return run(job)


if __name__ == "__main__":
    run_job(PrepareJob, main, description=__doc__)
