"""Two hosts on one machine: network namespaces with an address each, a Ray node on each, and a link that can be cut.

Each host has its own loopback, its own interface and its own /tmp/ray; the rest of the disk is shared, as a network
file system is. Where namespaces cannot be made (not root, no `ip`), `why_not` tells so.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import psutil

from tests.processes import descendants, kill_tree, title

_NOBODY = "02:00:00:00:00:99"
_PORT = 6379  # each host has all ports to itself
_RAY = str(Path(sys.executable).with_name("ray"))
# Mounts made below `ip netns exec` are seen there alone.
_OWN_RAY_FOLDER = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
# What a local Ray of the tests has left in the environment: it would hold a host to its loopback.
_OF_A_LOCAL_RAY = (
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
    "VLLM_HOST_IP",
    "RAY_ADDRESS",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
)
_UNTIL_BOTH = """
import time
import ray

ray.init()
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.2)
"""


@cache
def why_not() -> str:
    """Return why no hosts can be had here; empty where they can."""
    if shutil.which("ip") is None:
        return "no program ip (package iproute2)"
    if os.getuid() != 0:
        return "only root may make network namespaces"
    name = f"mr-try-{os.getpid()}"
    steps = [["netns", "add", name], ["-n", name, "link", "set", "lo", "up"], ["netns", "delete", name]]
    for step in steps:
        done = subprocess.run(["ip", *step], capture_output=True, text=True)
        if done.returncode:
            return f"ip {' '.join(step)}: {done.stderr.strip()[:200]}"
    return ""


class TwoHosts:
    """A head and one more host, joined by a link; jobs run on the head, as a submitted one does."""

    def __init__(
        self, *, num_cpus: Sequence[int], options: Sequence[str] = (), environment: dict[str, str] | None = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
        self._names = [f"mr-{os.getpid()}-{side}" for side in "ab"]
        self._links = [f"mr{os.getpid()}{side}" for side in "ab"]  # at most 15 letters
        self.addresses = ["10.213.7.1", "10.213.7.2"]
        kept = {name: value for name, value in os.environ.items() if name not in _OF_A_LOCAL_RAY}
        self._environment = kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a-token-that-both-hosts-know-0123456789",
            "RAY_USAGE_STATS_ENABLED": "0",
            **(environment or {}),
        }
        self._nodes: list[subprocess.Popen] = []
        try:
            self._make_network()
            for host, count in enumerate(num_cpus):
                self._nodes.append(self._start_node(host, f"--num-cpus={count}", *options))
            self.run([sys.executable, "-c", _UNTIL_BOTH], timeout_s=150)
        except BaseException:
            self.stop()
            raise

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen:
        """Start a program on the head that joins this cluster; what it prints is added to the log."""
        with log.open("ab") as stream:
            return self._start(0, command, stdout=stream, environment={"RAY_ADDRESS": self._address})

    def run(self, command: Sequence[str], *, timeout_s: float) -> None:
        """Run a program on the head to its end; it must end well."""
        process = self.start(command, self._folder / "run.log")
        assert process.wait(timeout=timeout_s) == 0, self.log()

    def cut_link(self) -> None:
        """Let nothing pass between the hosts, which are told nothing of it, as where a switch dies."""
        for host, link in enumerate(self._links):
            # What goes to a hardware address that nobody has is sent and heard by nobody.
            other = self.addresses[1 - host]
            self._within(host, "ip", "neighbour", "replace", other, "lladdr", _NOBODY, "dev", link, "nud", "permanent")

    def mend_link(self) -> None:
        """Let all pass again."""
        for host, link in enumerate(self._links):
            self._within(host, "ip", "neighbour", "delete", self.addresses[1 - host], "dev", link)

    def sent_bytes(self) -> list[int]:
        """Return what each host has sent to the other so far."""
        counter = "cat /sys/class/net/{}/statistics/tx_bytes"
        commands = [counter.format(link).split() for link in self._links]
        return [int(self._within(host, *command)) for host, command in enumerate(commands)]

    def titles(self) -> list[set[str]]:
        """Return what the processes of each host's Ray node say that they do."""
        return [{title(process) for process in self.processes(host)} for host in range(2)]

    def processes(self, host: int) -> list[psutil.Process]:
        """Return the processes of a host's Ray node."""
        return descendants(self._nodes[host].pid)

    def log(self) -> str:
        """Return the end of what the nodes have said."""
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self._folder.glob("*.log")))

    def stop(self) -> None:
        """End all processes of both hosts, and take the hosts away."""
        for process in reversed(self._nodes):
            kill_tree(process)
        for name in self._names:
            told = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
            for pid in told.stdout.split():  # a driver of ours that is left
                with contextlib.suppress(psutil.Error):
                    psutil.Process(int(pid)).kill()
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _address(self) -> str:
        return f"{self.addresses[0]}:{_PORT}"

    def _make_network(self) -> None:
        Path("/tmp/ray").mkdir(exist_ok=True)
        for name in self._names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        ours, theirs = self._links
        _ip("link", "add", ours, "netns", self._names[0], "type", "veth", "peer", theirs, "netns", self._names[1])
        for name, link, address in zip(self._names, self._links, self.addresses, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            _ip("-n", name, "link", "set", link, "up")

    def _start_node(self, host: int, *options: str) -> subprocess.Popen:
        place = (
            ["--head", f"--port={_PORT}", "--include-dashboard=false"] if host == 0 else [f"--address={self._address}"]
        )
        command = [_RAY, "start", *place, f"--node-ip-address={self.addresses[host]}", "--block"]
        command += ["--object-store-memory=200000000", "--disable-usage-stats", *options]
        with open(self._folder / f"node{host}.log", "ab") as log:
            return self._start(host, command, stdout=log)

    def _start(
        self, host: int, command: Sequence[str], *, stdout: object, environment: dict[str, str] | None = None
    ) -> subprocess.Popen:
        own = self._folder / f"ray{host}"
        own.mkdir(exist_ok=True)
        entered = ["ip", "netns", "exec", self._names[host], "sh", "-c", _OWN_RAY_FOLDER, "sh", str(own), "/tmp/ray"]
        return subprocess.Popen(
            [*entered, *command],
            env=self._environment | (environment or {}),
            cwd=Path(__file__).resolve().parents[3],
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _within(self, host: int, *command: str) -> str:
        entered = ["ip", "netns", "exec", self._names[host], *command]
        return subprocess.run(entered, check=True, capture_output=True, text=True).stdout


def wait_for(condition, process: subprocess.Popen, *, timeout_s: float = 240.0) -> None:
    """Poll until the condition holds; fails at once where the process ends before."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} before what was waited for"
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.05)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
