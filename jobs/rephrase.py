"""Rephrase the human captions of a corpus into a caption table, each exactly once.

    python jobs/rephrase.py --shards URI --model DIR_OR_HUB_ID --output URI      # started again with the same: goes on

The model is a T5, decoded with diverse beams, or an instruct model that vLLM runs. Training mixes the table in with
--data.caption_tables URI --data.captions human 0.7 rephrased 0.3.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.rephrase.job import RephraseJob


def main(job: RephraseJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.rephrase.run import rephrase

    return rephrase(job)


if __name__ == "__main__":
    run_job(RephraseJob, main, description=__doc__)
