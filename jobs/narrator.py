"""Teach a narrator, a LLaVA or a gated GPT-2 as LaViLa's, on clips with human captions, to caption those without.

    python jobs/narrator.py [configs/narrator/NAME.yaml] --storage URI --run NAME     # again with the same two: resumes

Without arguments it trains a small one from scratch on an embedded corpus, which is made on first use.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.narrator.job import NarratorJob


def main(job: NarratorJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.narrator.run import run

    return run(job)


if __name__ == "__main__":
    run_job(NarratorJob, main, description=__doc__)
