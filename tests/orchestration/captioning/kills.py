"""Captioning under fire: SIGKILL at random moments to the driver, an engine or a node, and started again."""

import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.orchestration.captioning.captioning_runs import TwoNodes, parts_of

_LONGEST_START_S = 12.0  # while no engine has written anything


def caption_under_fire(
    nodes: TwoNodes,
    arguments: Sequence[str],
    output: Path,
    pending: list[str],
    rng: random.Random,
    log: Path,
    *,
    most_parts: int = 4,
) -> None:
    """Caption into `output`, killing at random moments what comes last in `pending`, until the table is whole.

    Between two kills up to `most_parts` parts are committed.
    """
    job, committed = None, set()
    while True:
        if job is None:
            assert parts_of(output) >= committed, "committed parts are gone"
            job = nodes.start_captioning(*arguments, "--output", str(output), log=log)
        status = _wait_for_a_moment(job, output, rng, most_parts) if pending else job.wait(timeout=300)
        if status is not None:
            assert status == 0, log.read_text()[-3000:]
            return
        committed = parts_of(output)
        match pending[-1]:
            case "driver":
                job.kill()
                job.wait()
                job = None
            case "engine":
                engines = nodes.engines()
                if not engines:
                    continue  # none has started yet: another moment
                rng.choice(engines).kill()
            case "node":
                nodes.kill_node()
                nodes.add_node()
        pending.pop()


def _wait_for_a_moment(job: subprocess.Popen, output: Path, rng: random.Random, most_parts: int) -> int | None:
    """Wait until a few more parts are committed, or, one time in four, a moment of the start; status if the job ends.

    In parts, not in seconds: so the moments lie all over a run on a slow machine as on a fast one.
    """
    is_early = rng.random() < 0.25
    wanted = len(parts_of(output)) + rng.randint(0, most_parts)
    end = time.monotonic() + (rng.uniform(0.5, _LONGEST_START_S) if is_early else 300)
    while time.monotonic() < end and (is_early or len(parts_of(output)) <= wanted):
        if job.poll() is not None:
            return job.returncode
        time.sleep(0.05)
    return job.poll()
