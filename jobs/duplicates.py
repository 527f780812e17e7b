"""Find clips of val and test that look like clips of train and meta: copies in another encoder, size or cut.

python jobs/duplicates.py --shards URI [--output FILE]      # writes a CSV file of the pairs; changes nothing
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.duplicates.job import DuplicatesJob


def main(job: DuplicatesJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.duplicates.run import find_duplicates

    return find_duplicates(job)


if __name__ == "__main__":
    run_job(DuplicatesJob, main, description=__doc__)
