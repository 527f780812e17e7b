"""Thirty SIGKILLs at random moments over seven jobs: nothing is lost, doubled or half-written, and nobody lives on.

Every killed start is followed at once by another, as a user would do it. In the end each job has left what one that
nobody disturbed has left.
"""

import logging
import random
import time
from pathlib import Path

import pytest

from mama_ray.data.synthetic.folder import write_corpus
from tests.carry_on.killed_jobs import CORPUS, FEW_KILLS, NUM_KILLS, KilledJob, alive_of, jobs_on

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]
logger = logging.getLogger(__name__)

EARLIEST, LATEST = 0.2, 1.0  # when a start is killed, as a share of how long an undisturbed one takes
ENDS_WITHIN_S = 20.0  # all that worked for a killed driver
LONGEST_S = 400.0


class Killer:
    """Starts and kills; remembers who was killed when, to see later that nobody who worked for them lives."""

    def __init__(self, seed: int) -> None:
        self._chance, self._killed = random.Random(seed), []
        self.num_starts = 0

    def run_to_end(self, job: KilledJob, folder: Path) -> float:
        """Start a job twice at one moment, and let the one that is not refused end by itself; return how long it took.

        Evaluations are not refused: they are started once.
        """
        began_s = time.monotonic()
        starts = [job.start(folder, self._next_mark(job)) for _ in range(1 if job.name == "evaluate" else 2)]
        statuses = [start.wait(timeout=LONGEST_S) for start in starts]
        log = (folder / "job.log").read_text()
        assert sorted(statuses) == [0, 1][: len(starts)], log[-3000:]
        if 1 in statuses:
            (told,) = [line for line in log.splitlines() if "another start is at work" in line]
            assert told.startswith("error: ") and f"pid {starts[statuses.index(0)].pid}" in told
        return time.monotonic() - began_s

    def run_under_fire(self, job: KilledJob, folder: Path, num_kills: int, length_s: float) -> int:
        """Start a job again and again, killing it at random moments, until it ends; return how many kills it took."""
        for kill in range(num_kills + 1):
            mark = self._next_mark(job)
            process = job.start(folder, mark)
            deadline_s = time.monotonic() + (
                LONGEST_S if kill == num_kills else self._chance.uniform(EARLIEST, LATEST) * length_s
            )
            while process.poll() is None and time.monotonic() < deadline_s:
                time.sleep(0.05)
            if process.poll() is None:
                process.kill()
                process.wait()
                self._killed.append((mark, time.monotonic()))
                assert kill < num_kills, f"{job.name} does not end: " + (folder / "job.log").read_text()[-3000:]
                continue
            assert process.returncode == 0, (folder / "job.log").read_text()[-3000:]
            return kill
        raise AssertionError("unreachable")

    def left(self) -> list[str]:
        """Return who works for a start that was killed so long ago that nobody should, and end them."""
        due = [mark for mark, killed_s in self._killed if time.monotonic() - killed_s > ENDS_WITHIN_S]
        self._killed = [(mark, killed_s) for mark, killed_s in self._killed if mark not in due]
        found = [(mark, process) for mark in due for process in alive_of(mark)]
        for _, process in found:
            process.kill()
        return [f"{mark}: {process}" for mark, process in found]

    def _next_mark(self, job: KilledJob) -> str:
        self.num_starts += 1
        return f"{job.name}-{self.num_starts}-{id(self):x}"


def test_there_are_thirty_kills():
    assert sum(NUM_KILLS.values()) == 30


# All thirty take twenty minutes, on busy cores thirty. At every change one job is killed twice; captioning, training
# and sweeps have tests of their own.
CASES = [pytest.param(name, most, id=f"{name}-{most}") for name, most in NUM_KILLS.items()]
CASES += [pytest.param(name, few, id=f"{name}-{few}", marks=pytest.mark.promise) for name, few in FEW_KILLS.items()]


@pytest.mark.parametrize(("name", "num_kills"), CASES)
def test_a_job_that_is_killed_again_and_again_leaves_what_an_undisturbed_one_leaves(name, num_kills, tmp_path):
    write_corpus(CORPUS, tmp_path / "corpus")
    (job,) = [job for job in jobs_on(tmp_path / "corpus") if job.name == name]
    killer, left, num_folders = Killer(seed=13 + num_kills), [], 0
    length_s = killer.run_to_end(job, tmp_path / "whole")
    wanted, pending = job.outcome(tmp_path / "whole"), num_kills
    while pending:
        folder = tmp_path / f"killed-{num_folders}"
        pending -= killer.run_under_fire(job, folder, pending, length_s)
        assert job.outcome(folder) == wanted, f"{folder} is not what an undisturbed {name} leaves"
        left += killer.left()
        num_folders += 1
    logger.warning("%s: %.0f s undisturbed, %d kills over %d folders", name, length_s, num_kills, num_folders)
    time.sleep(ENDS_WITHIN_S)
    assert not left + killer.left()
