"""Score a file of answers that any model gave to a benchmark's questions, or of its scores of a benchmark's clips.

python jobs/score.py --benchmark NAME --questions TABLE --predictions FILE      # --output FILE writes the result
python jobs/score.py --benchmark NAME --annotations FOLDER --predictions FILE.npz
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.scoring.job import ScoreJob


def main(job: ScoreJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.scoring.run import run

    return run(job)


if __name__ == "__main__":
    run_job(ScoreJob, main, description=__doc__)
