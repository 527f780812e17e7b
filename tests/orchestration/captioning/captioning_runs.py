"""A small corpus in shards, a cluster of two nodes on this machine, and the means to caption there and to kill."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pyarrow as pa

from mama_ray.captioning.table import read_caption_files
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import list_clips
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.storage.places import Place
from tests.processes import descendants, kill_tree, title

ROOT = Path(__file__).resolve().parents[3]
RAY = str(Path(sys.executable).with_name("ray"))
CLIPS_PER_SHARD = 100
_UNTIL_TWO_NODES = """
import time
import ray

ray.init()
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.2)
"""
ENGINE_TITLE = "MapWorker(MapBatches(Captioning))"  # that Ray gives the processes of captioning actors


def write_caption_shards(directory: Path, corpus: CorpusConfig) -> Path:
    """Write a corpus straight to shards with their index, without Ray."""
    directory.mkdir(parents=True)
    facts = {"duration_s": corpus.duration_s, "width": 48, "height": 48, "fps": float(corpus.fps), "codec": "h264"}
    clips, rows, sizes = list_clips(corpus), [], {}
    for number, start in enumerate(range(0, len(clips), CLIPS_PER_SHARD)):
        name = f"clips-{number:06d}.tar"
        generated = [generate_clip(corpus, *clip) for clip in clips[start : start + CLIPS_PER_SHARD]]
        places = write_shard(directory / name, [(one.clip, one.video, "mp4") for one in generated])
        rows += [index_row(one.clip, place, name, facts) for one, place in zip(generated, places, strict=True)]
        sizes[name] = {"num_bytes": (directory / name).stat().st_size, "num_clips": len(generated)}
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return directory


def read_captions(output: Path) -> list[tuple[str, int, str | None, str | None]]:
    """Return (clip_id, sample, caption, error) of every row of a finished table, in its order."""
    tables = read_caption_files(Place.of(output), ["clip_id", "sample", "caption", "error"])
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def parts_of(output: Path) -> set[str]:
    """Return the names of the parts that a job has committed."""
    return {path.name for path in (output / ".captioning/parts").rglob("*-*.parquet")}


class TwoNodes:
    """A head and one more node, each with processes of its own; nothing else on the machine is touched."""

    def __init__(
        self, *, head_cpus: int, node_cpus: int, head_options: Sequence[str] = (), node_options: Sequence[str] = ()
    ) -> None:
        self._folder = tempfile.mkdtemp(prefix="mr-", dir="/tmp")  # short: sockets lie below it
        self._port, self._node = free_port(), [f"--num-cpus={node_cpus}", *node_options]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {
            "RAY_ADDRESS": f"127.0.0.1:{self._port}",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "PATH": path,
        }
        head = ["--head", f"--port={self._port}", f"--temp-dir={self._folder}", "--include-dashboard=false"]
        self._processes = [self._start(*head, f"--num-cpus={head_cpus}", *head_options)]
        self._wait_for_head()
        self.add_node()
        self._wait_for_both()

    def add_node(self) -> None:
        """Start another node; it joins a few seconds later."""
        self._processes.append(self._start(f"--address=127.0.0.1:{self._port}", *self._node))

    def kill_node(self) -> None:
        """SIGKILL the newest node and all that runs on it, as a lost machine would."""
        kill_tree(self._processes.pop())

    def engines(self) -> list[psutil.Process]:
        """Return the processes of the captioning actors of this cluster."""
        return [process for process in self._below(*self._processes) if ENGINE_TITLE in title(process)]

    def titles(self) -> list[set[str]]:
        """Return what Ray's processes on the head and on each further node say that they do right now."""
        return [{title(process) for process in self._below(node)} for node in self._processes]

    def start_captioning(self, *arguments: str, log: Path) -> subprocess.Popen:
        """Start jobs/caption.py on this cluster as a user would."""
        with log.open("ab") as stream:
            command = [sys.executable, str(ROOT / "jobs/caption.py"), *arguments]
            environment = self.environment
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """End all processes of this cluster."""
        for process in reversed(self._processes):
            kill_tree(process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _below(self, *processes: subprocess.Popen) -> list[psutil.Process]:
        return [below for process in processes for below in descendants(process.pid)]

    def _start(self, *arguments: str) -> subprocess.Popen:
        options = ["--block", "--object-store-memory=200000000", "--disable-usage-stats"]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        with open(Path(self._folder, "nodes.log"), "ab") as log:
            command = [RAY, "start", *arguments, *options]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _wait_for_head(self) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            time.sleep(0.2)
        raise AssertionError(Path(self._folder, "nodes.log").read_text()[-2000:])

    def _wait_for_both(self) -> None:
        """An elastic group that starts before the second node has joined starts without it."""
        command = [sys.executable, "-c", _UNTIL_TWO_NODES]
        subprocess.run(command, env=self.environment, check=True, timeout=120, capture_output=True)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
