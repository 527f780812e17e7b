"""Search a training job's settings, or compare named variants of it (an ablation).

    python jobs/tune.py [configs/sweep/NAME.yaml] --storage URI --run NAME     # again with the same two: resumes

Without arguments it searches margin and learning rates on the embedded corpus, which is made on first use.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.run import sweep

if __name__ == "__main__":
    run_job(SweepJob, sweep, description=__doc__)
