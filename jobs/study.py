"""Run the controlled study: what margin, learned weights and generated captions do to clips with known faults.

    python jobs/study.py [configs/study/NAME.yaml] --storage FOLDER     # again with the same: goes on

`make study` runs configs/study/study.yaml, `make study-quick` a small part of it.
"""

from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.run import study
from mama_ray.orchestration.cluster.entry import run_job

if __name__ == "__main__":
    run_job(StudyJob, study, description=__doc__)
