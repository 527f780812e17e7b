"""The app as a person starts it: a process of its own on a free port, over a small embedded corpus."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import write_corpus
from tests.orchestration.prepare.in_process import prepare
from tests.processes import kill_tree

ROOT = Path(__file__).resolve().parents[3]
SMALL_CORPUS = CorpusConfig(num_train=48, num_meta=16, num_val=24, num_test=24)
_STARTS_WITHIN_S = 300  # torch alone takes 20 s to import where others keep the cores busy, and Ray Serve minutes


@dataclass
class RunningApp:
    """An app that answers; `log` is what it has written so far."""

    process: subprocess.Popen
    port: int
    log_file: Path
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        """What the process has written."""
        return self.log_file.read_text(errors="replace")

    def get(self, path: str, **more) -> httpx.Response:
        """Ask as a program does."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more) -> httpx.Response:
        """Write as a program does."""
        return self.request("POST", path, **more)

    def request(self, method: str, path: str, **more) -> httpx.Response:
        """Ask for a path as it stands, without an agent's tidying."""
        more["headers"] = {**self.headers, **more.get("headers", {})}
        return httpx.request(method, self.url + path, **{"timeout": 60, **more})

    def stop(self) -> None:
        """End it and all it has started."""
        kill_tree(self.process)


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make_shards(folder: Path, corpus: CorpusConfig = SMALL_CORPUS, more: Iterable[dict] = ()) -> Path:
    """Generate and prepare an embedded corpus without Ray; returns the folder of its shards.

    more: rows that are added to its table.
    """
    write_corpus(corpus, folder / "corpus")
    with open(folder / "corpus/annotations.jsonl", "a") as table:
        table.writelines(json.dumps(row) + "\n" for row in more)
    prepare(
        videos=str(folder / "corpus/videos"),
        annotations=str(folder / "corpus/annotations.jsonl"),
        output=str(folder / "shards"),
    )
    return folder / "shards"


def start_app(
    data: Path, *arguments: str, port: int | None = None, within_s: float = _STARTS_WITHIN_S, **environment: str
) -> RunningApp:
    """Start jobs/app.py with more arguments of its command line, and wait until it answers."""
    port = port or free_port()
    data.mkdir(parents=True, exist_ok=True)
    log_file = data / f"app-{port}.log"
    command = [sys.executable, "jobs/app.py", *arguments, "--data", str(data), "--port", str(port)]  # a config is first
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    app = RunningApp(process, port, log_file)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the app ended with {process.returncode}: {app.log()[-3000:]}")
        with contextlib.suppress(httpx.TransportError):
            app.get("/static/app.css")
            return app
        time.sleep(0.1)
    app.stop()
    raise AssertionError(f"the app does not answer: {app.log()[-3000:]}")


@contextlib.contextmanager
def running_app(
    data: Path, *arguments: str, within_s: float = _STARTS_WITHIN_S, **environment: str
) -> Iterator[RunningApp]:
    """Give an app that is ended with the block."""
    app = start_app(data, *arguments, within_s=within_s, **environment)
    try:
        yield app
    finally:
        app.stop()


def raw(app: RunningApp, request: bytes) -> bytes:
    """Send bytes as they are, and return what comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=30) as connection:
        with contextlib.suppress(OSError):  # the other side may close before all is sent
            connection.sendall(request)
        answer = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(1 << 16):
                answer += part
        return answer
