"""Run the controlled study: what margin, learned weights and generated captions do to clips with known faults.

    python jobs/study.py [configs/study/NAME.yaml] --storage FOLDER     # again with the same: goes on

`make study` runs second.yaml and sources.yaml, `make study-first` study.yaml, the first part; `make study-quick` the
second part's main table with three seeds.
"""

from mama_ray.experiments.study.job import StudyJob
from mama_ray.orchestration.cluster.entry import run_job


def main(job: StudyJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.experiments.study.run import study

    return study(job)


if __name__ == "__main__":
    run_job(StudyJob, main, description=__doc__)
