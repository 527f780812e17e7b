"""Extract the features that VGT reads, frames and linked regions with boxes, each clip's exactly once.

    python jobs/features.py --shards URI --frame_model DIR_OR_HUB_ID --detector DIR_OR_HUB_ID --output URI

Started again with the same it goes on. The table is tied to the clips by id and by the hash of their video.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.features.job import FeaturesJob


def main(job: FeaturesJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.features.run import make_features

    return make_features(job)


if __name__ == "__main__":
    run_job(FeaturesJob, main, description=__doc__)
