"""Show the method at work: one noisy corpus, four ways to learn from it, one table and one report page.

python jobs/demo.py --storage URI
"""

from mama_ray.experiments.demo import DemoJob, run_demo
from mama_ray.orchestration.cluster.entry import run_job

if __name__ == "__main__":
    run_job(DemoJob, run_demo, description=__doc__)
