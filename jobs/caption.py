"""Write captions for a corpus of any size, each clip's exactly once.

    python jobs/caption.py --shards URI --model DIR_OR_HUB_ID --output URI      # started again with the same: goes on

Without arguments the embedded narrator captions the embedded corpus.
"""

from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.cluster.entry import run_job


def main(job: CaptionJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.captioning.run import caption

    return caption(job)


if __name__ == "__main__":
    run_job(CaptionJob, main, description=__doc__)
