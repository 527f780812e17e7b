"""Each kind of job on a machine that others use: no open door while it works; told to stop, a quick and whole end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.carry_on.write_folders import FOLDERS
from tests.orchestration.cluster.listening import family, http_status, is_loopback, listening_sockets
from tests.orchestration.runs.training_runs import ROOT, SETTINGS, write_shards

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LEAVES_WITHIN_S = 10.0
GONE_AFTER_S = 20.0
STARTED = "started a local Ray"
LONG = SETTINGS | {"num_epochs": 500.0, "checkpoint_every": 2, "log_every": 1}
KINDS = ["prepare", "caption", "train", "narrator", "tune", "evaluate", "study", "duplicates"]
# At every change two kinds stand for the others; SIGINT goes the way of SIGTERM.
PROMISED = [("caption", signal.SIGTERM), ("train", signal.SIGTERM)]
STOPS = [
    pytest.param(kind, sent, id=f"{kind}-{sent.name}", marks=pytest.mark.promise if (kind, sent) in PROMISED else ())
    for sent in (signal.SIGTERM, signal.SIGINT)
    for kind in KINDS
]
SLOW_ENGINE = ["--engine.max_num_seqs", "1", "--pool.min_size", "1", "--pool.max_size", "1"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


def written(folder: Path, pattern: str) -> Callable[[str], bool]:
    return lambda log: any(folder.glob(pattern))


def some_seconds_after(line: str, seconds: float) -> Callable[[str], bool]:
    seen: list[float] = []

    def is_there(log: str) -> bool:
        if line in log and not seen:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() > seen[0] + seconds

    return is_there


def config_file(folder: Path, config: dict) -> str:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def job_of(kind: str, shards: Path, folder: Path) -> tuple[list[str], Callable[[str], bool]]:
    """Return the arguments of a job that would work for minutes, and what tells from its log that it is in mid-work."""
    on = {"shards": str(shards), "storage": str(folder), "run": "one"}
    match kind:
        case "prepare":
            corpus = ["--corpus.num_train", "4000", "--corpus_folder", str(folder / "corpus")]
            return [*corpus, "--output", str(folder / "out")], some_seconds_after(STARTED, 8)
        case "caption":
            arguments = ["--shards", str(shards), "--output", str(folder / "table"), "--model", "embedded"]
            return arguments + SLOW_ENGINE, written(folder, "table/.captioning/parts/**/*-*.parquet")
        case "train":
            two = LONG | on | {"num_workers": 2}
            return [config_file(folder, two)], written(folder, "one/checkpoints/step_*")
        case "narrator":
            settings = {"global_batch_size": 16, "num_epochs": 200.0, "num_workers": 2, "checkpoint_every": 2}
            settings |= {"num_val_clips": 8, "model_dtype": "float32", "data": {"max_caption_tokens": 16}}
            return [config_file(folder, settings | on)], written(folder, "one/checkpoints/step_*")
        case "tune":
            space = {"objective.margin": {"uniform": [0.0, 0.4]}}
            sweep = {"train": LONG | {"num_workers": 1, "shards": str(shards)}, "search_space": space}
            sweep |= {"storage": str(folder), "run": "one"}
            return [config_file(folder, sweep)], some_seconds_after(STARTED, 25)
        case "study":
            quick = str(ROOT / "configs/study/quick.yaml")
            return [quick, "--storage", str(folder / "study")], some_seconds_after(STARTED, 15)
        case "evaluate":
            arguments = ["--checkpoint", str(FOLDERS / "model"), "--shards", str(FOLDERS / "shards")]
            arguments += ["--benchmark", "embedded", "--batch_size", "1", "--output", str(folder / "out")]
            return arguments, some_seconds_after(STARTED, 1)
        case "duplicates":
            return ["--shards", str(shards), "--output", str(folder / "pairs.csv")], some_seconds_after(STARTED, 1)
    raise AssertionError(kind)


class Job:
    """A job that was started as a user would, with a Ray of its own and neither token nor word of one."""

    def __init__(self, kind: str, shards: Path, folder: Path) -> None:
        arguments, self._is_at_work = job_of(kind, shards, folder)
        self._log = folder / "job.log"
        self.sockets: set[tuple[str, int, str]] = set()
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _WITH_CTRL_C, str(ROOT / f"jobs/{kind}.py"), *arguments],
                cwd=ROOT, stdout=log, stderr=log, start_new_session=True, env=own,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_at_work(self) -> None:
        end = time.monotonic() + 300
        while not self._is_at_work(self.log):
            assert self.process.poll() is None, self.log[-3000:]
            assert time.monotonic() < end, self.log[-3000:]
            self.sockets |= listening_sockets(self.process.pid)
            time.sleep(0.3)
        self.sockets |= listening_sockets(self.process.pid)


# A shell's background job, which the tests may run in, hands on that Ctrl-C is ignored.
_WITH_CTRL_C = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture
def start(corpus, tmp_path) -> Iterator[Callable[[str], Job]]:
    jobs: list[tuple[Job, list[psutil.Process]]] = []

    def start(kind: str) -> Job:
        job = Job(kind, corpus, tmp_path)
        jobs.append((job, []))
        return job

    yield start
    for job, _ in jobs:
        for process in family(job.process.pid):
            with contextlib.suppress(psutil.Error):
                process.kill()
        job.process.wait()


def left_of(processes: list[psutil.Process], within_s: float) -> list[str]:
    """Wait for processes to end; return those that have not."""
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return [f"{process.pid} {process.name()}" for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(("kind", "sent"), STOPS)
def test_a_job_has_no_open_door_and_leaves_soon_and_whole(start, kind, sent):
    job = start(kind)
    job.wait_until_at_work()
    processes = family(job.process.pid)
    token = processes[0].environ().get("RAY_AUTH_TOKEN")
    assert token is None, "a token is for Ray's processes, made by the job"
    refuses_strangers(processes, job.sockets)

    began = time.monotonic()
    job.process.send_signal(sent)
    status = job.process.wait(timeout=60)
    took_s = time.monotonic() - began
    assert status == 128 + sent, job.log[-3000:]
    assert took_s < LEAVES_WITHIN_S
    last = job.log.splitlines()[-1]
    assert last.startswith("stopped by ") and "started again" in last, job.log[-3000:]
    assert "*** SIG" not in job.log and " @ " not in job.log, job.log[-5000:]
    assert left_of(processes, GONE_AFTER_S) == []
    assert [one for one in job.sockets if not is_loopback(one[0])] == []


def refuses_strangers(processes: list[psutil.Process], sockets: set[tuple[str, int, str]]) -> None:
    """Ask the dashboard as its node does, as one without a token, and as one with another."""
    for raylet in processes:
        with contextlib.suppress(psutil.Error):
            if raylet.name() == "raylet":
                token = raylet.environ()["RAY_AUTH_TOKEN"]
                address = raylet.environ()["RAY_API_SERVER_ADDRESS"]
                break
    else:
        raise AssertionError("no raylet")
    port = int(address.rsplit(":", 1)[1])
    assert port in {one[1] for one in sockets}
    assert http_status(port, "/nodes?view=summary", token) == 200
    assert http_status(port, "/nodes?view=summary", None) == 401
    assert http_status(port, "/nodes?view=summary", "0" * 64) == 403
