"""Watching a captioning job from outside: the CPU seconds of all its processes, its answers, a kill in the middle."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from peer_captioning_cases.jobs import CAPTIONS, Setting
from peer_captioning_cases.record import ANSWERS, read_answers, write_plugin

ACTOR, ENGINE_CORE = "the actor that holds the engine", "the engine's own process"
_ROOT = Path(__file__).resolve().parents[2]
_EVERY_S = 0.25
_STARTS_TAKE = 4  # times as long as silence may last elsewhere
_FIRST_SHARE = 0.1  # of the answers, before the clock of the steady part starts
# One thread of an engine each, what our engine sets for its own process, and workers as urgent as other processes.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "TOKENIZERS_PARALLELISM": "false",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "VLLM_CONFIGURE_LOGGING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What became of a job.

    Attributes:
        status: its exit status, None where it was ended after the time it had.
        answers_s: times of day of the engines' answers, ascending.
        cpu: (time of day, CPU seconds of all processes so far).
        captions: (clip_id, text) of each row that came out.
        left_over: processes of an engine that outlived the job.
        told: the end of what it printed.
    """

    status: int | None
    answers_s: list[float]
    cpu: list[tuple[float, float]]
    captions: list[tuple[str, str]]
    left_over: int
    told: str

    def steady(self) -> dict[str, float]:
        """Return captions per second, and CPU seconds per caption, from a tenth of the answers to the last."""
        first = int(_FIRST_SHARE * len(self.answers_s))
        count, ends = len(self.answers_s) - first - 1, [self.answers_s[first], self.answers_s[-1]]
        began, ended = np.interp(ends, *zip(*self.cpu, strict=True))
        return {"captions_per_s": count / (ends[1] - ends[0]), "cpu_s_per_caption": float(ended - began) / count}


def run_job(setting: Setting, limit_s: float, kill: str | None = None, kill_at: int = 0) -> Seen:
    """Run a job to its end, or until no answer came for `limit_s`, four times that where an engine starts.

    `kill` names the process that gets SIGKILL when `kill_at` answers are there.
    """
    with tempfile.TemporaryDirectory(prefix="peer-captioning-") as name:
        folder = Path(name)
        (folder / "plugin").mkdir()
        (folder / "output").mkdir()
        write_plugin(folder / "plugin")
        setting.save(folder / "setting.json")
        command = [sys.executable, str(Path(__file__).with_name("jobs.py"))]
        command += [str(folder / "setting.json"), str(folder / "output")]
        path = os.pathsep.join([str(folder / "plugin"), str(_ROOT)])
        environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": path, ANSWERS: str(folder / "answers")}
        with (folder / "told").open("w") as told:
            job = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, env=environment)
            try:
                cpu, core = _watch(job, folder / "answers", limit_s, kill, kill_at)
            finally:  # also where this program is told to end
                for process in _tree(job.pid)[::-1]:
                    _end(process)
        output = folder / "output" / CAPTIONS
        rows = pq.read_table(output).to_pylist() if output.exists() else []
        return Seen(
            job.returncode if job.returncode != -signal.SIGKILL else None,
            [when for when, _ in read_answers(folder / "answers")],
            cpu,
            [(row["clip_id"], row["text"]) for row in rows],
            int(core is not None and _end(core)),
            (folder / "told").read_text()[-3000:],
        )


def _watch(
    job: subprocess.Popen, answers: Path, limit_s: float, kill: str | None, kill_at: int
) -> tuple[list[tuple[float, float]], psutil.Process | None]:
    """Return CPU seconds by time of day, and the process of the killed actor's engine, where it had one of its own."""
    used: dict[int, float] = {}
    samples, core, count, starts, heard_s = [], None, 0, True, time.monotonic()
    while job.poll() is None:
        for process in _tree(job.pid):
            with suppress(psutil.Error):
                used[process.pid] = max(used.get(process.pid, 0.0), sum(process.cpu_times()[:2]))  # user and system
        samples.append((time.time(), sum(used.values())))
        if len(found := read_answers(answers)) > count:
            count, starts, heard_s = len(found), False, time.monotonic()
        if kill and count >= kill_at:
            core, kill, starts = _kill(found[-1][1], kill), None, True
        if time.monotonic() - heard_s > limit_s * (_STARTS_TAKE if starts else 1):
            for process in _tree(job.pid)[::-1]:
                _end(process)
        time.sleep(_EVERY_S)
    return samples, core


def _kill(actor: int, which: str) -> psutil.Process | None:
    """Kill an actor or its engine's process; return the latter."""
    children = sorted(psutil.Process(actor).children(), key=lambda child: child.memory_info().rss)
    core = children[-1] if children else None
    target = actor if which == ACTOR or core is None else core.pid
    os.kill(target, signal.SIGKILL)
    return core


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


def _end(process: psutil.Process) -> bool:
    """End a process that a job left behind; False where it had ended."""
    with suppress(psutil.Error):
        process.kill()
        return True
    return False
