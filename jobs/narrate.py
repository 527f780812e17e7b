"""Narrate long videos: what happens when, as table, JSON lines, subtitles and a page with a player.

    python jobs/narrate.py --videos my_hour.mp4 --model DIR_OR_HUB_ID --output out    # started again: goes on

--videos takes videos, folders and .txt files of URIs. Without arguments the embedded narrator narrates a film of the
embedded corpus.
"""

from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.orchestration.narration.job import NarrateJob


def main(job: NarrateJob) -> str:
    """Import what runs the job when its config has been read: --help needs neither torch nor Ray."""
    from mama_ray.orchestration.narration.run import narrate

    return narrate(job)


if __name__ == "__main__":
    run_job(NarrateJob, main, description=__doc__)
