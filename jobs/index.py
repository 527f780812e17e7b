"""Index a corpus for search: features of every clip and caption by any dual encoder, in one table.

    python jobs/index.py --shards URI --model RUN_OR_DIR_OR_hf:ID [--captions URI ...] --output URI

Started again with the same it goes on; with more shards it adds theirs.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.indexing.job import IndexJob


def main(job: IndexJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.indexing.run import make_index

    return make_index(job)


if __name__ == "__main__":
    run_job(IndexJob, main, description=__doc__)
