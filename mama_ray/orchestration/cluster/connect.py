"""Joining or starting Ray: the same call on a laptop, on a head node and inside `ray job submit`."""

import json
import logging
import os
import shutil
import socket
import sys
from contextlib import suppress

import ray

from mama_ray.masking import mask_text, mask_this_process
from mama_ray.orchestration.cluster.freed_memory import share_one_arena
from mama_ray.orchestration.cluster.loopback import close_local_ray
from mama_ray.orchestration.cluster.noise import hide_noise, spell_control_characters
from mama_ray.orchestration.cluster.orphans import ended_with_driver
from mama_ray.orchestration.cluster.stopping import kept_signals
from mama_ray.storage.failures import StorageError

logger = logging.getLogger(__name__)

# On busy cores the start of a worker group passes Ray Train's own limit of 60 s.
_WORKER_GROUP_START_TIMEOUT_S = "240"
# A task that Ray ends because its node runs out of memory is tried again after 1, 2, 4 ... s, and by default for ever.
_OUT_OF_MEMORY_RETRIES = "8"
_SESSION_BYTES = 16 << 20  # 2 MiB of a short job, more of a long one
_DASHBOARD = "RAY_API_SERVER_ADDRESS"
_STARTS = 3
# Every process that works for a job masks what it logs and prints, Ray's own of a training among them.
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # where Ray puts the settings of a submitted job
_SETUP_HOOK = "worker_process_setup_hook"
_RUNTIME_ENVIRONMENT: dict = {_SETUP_HOOK: "mama_ray.masking.mask_this_process"}
# What Ray says where a node missed its fixed 30 s, as it may on busy cores, and where another program took a port
# between the moment when it was found free and that in which Ray bound it.
_PASSING_TROUBLES = (
    "timed out during startup",
    "already occupied",
    "already in use",
    "Failed to bind",
    "Failed to start a dashboard",
    "Failed to start GCS",
    "ports_by_node",
)


def connect(*, num_cpus: int | None = None) -> None:
    """Join the cluster that RAY_ADDRESS names (a submitted job has it set), else start a local one.

    Does nothing when this process is already connected. `num_cpus` only concerns a local start.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _WORKER_GROUP_START_TIMEOUT_S)
    os.environ.setdefault("RAY_task_oom_retries", _OUT_OF_MEMORY_RETRIES)
    quieten_ray_data()
    share_one_arena()
    if os.environ.get("RAY_ADDRESS"):
        with kept_signals():
            ray.init(log_to_driver=True, runtime_env=None if _has_own_hook() else _RUNTIME_ENVIRONMENT)
        hide_noise()
        return
    # Job drivers share a laptop with their workers: two cores must at least hold two train workers and their readers,
    # so logical CPUs are counted generously and the operating system shares the real ones.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a laptop is not reclaimed, and it polls
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it breaks progress bars with a blank line per update
    close_local_ray()
    logical_cpus = num_cpus or max(os.cpu_count() or 1, 2) * 2
    hide_noise()
    _require_room_for_a_session()
    with kept_signals(), ended_with_driver():
        _start(logical_cpus)
    hide_noise()  # again: Ray makes its stream of the workers' lines when it starts
    logger.info("started a local Ray with %d logical CPUs", logical_cpus)


def _has_own_hook() -> bool:
    """Whether a submitted job brings a hook of its own, which may not be given twice; workers then mask only where they
    call start_worker_logging.
    """
    submitted = json.loads(os.environ.get(_SUBMITTED) or "{}")
    return _SETUP_HOOK in (submitted.get("runtime_env") or {})


def _require_room_for_a_session() -> None:
    """Raise StorageError where the folder of Ray's logs and sockets has no room; Ray would fail a minute later."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray chooses it
    with suppress(FileNotFoundError):  # Ray makes it
        free = shutil.disk_usage(folder).free
        if free < _SESSION_BYTES:
            raise StorageError(
                "no space left for the files of a local Ray",
                got=f"{folder}: {free / 2**20:.1f} MiB",
                wanted=f"at least {_SESSION_BYTES >> 20} MiB",
                remedy="free some room there or set TMPDIR to a larger disk, then start again",
            )


def _start(logical_cpus: int) -> None:
    """Start a local Ray; again, with another port, for what may pass: a slow node, a port that was taken meanwhile."""
    # Ray Train asks the dashboard's API whether its controller is alive, to free what a dead one held. Where several
    # Rays run on one machine it must be told which dashboard; the workers inherit this from their node.
    options = {
        "address": "local",  # else Ray joins what a file in /tmp names, which others may write there
        "num_cpus": logical_cpus,
        "include_dashboard": True,
        "log_to_driver": True,
        "logging_level": logging.WARNING,
        "object_store_memory": _object_store_bytes(),
        "runtime_env": _RUNTIME_ENVIRONMENT,
    }
    for start in range(1, _STARTS + 1):
        port = _free_port()
        os.environ[_DASHBOARD] = f"http://127.0.0.1:{port}"
        try:
            ray.init(**options, dashboard_port=port)
            return
        except Exception as error:  # Ray raises a bare Exception for a node that was too slow
            if start == _STARTS or not any(trouble in str(error) for trouble in _PASSING_TROUBLES):
                raise
            reason = mask_text(" ".join(str(error).split()))[:200]
            logger.warning("Ray did not start (%s): trying again, %d of %d", reason, start + 1, _STARTS)
            ray.shutdown()
        finally:
            del os.environ[_DASHBOARD]  # this process may start another Ray later


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_worker_logging() -> None:
    """Let a Ray worker tell what this package logs, without Ray's own account of every pipeline and report."""
    mask_this_process()  # again: a job's own hook may have stood in the way
    handler = logging.StreamHandler(sys.stdout)  # Ray forwards a worker's output to the driver
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.addFilter(spell_control_characters)
    package = logging.getLogger("mama_ray")
    package.handlers = [handler]
    package.propagate = False
    package.setLevel(logging.INFO)
    # Ray Train tells every report, with all metrics, through a logger that is named by its file.
    for name in list(logging.root.manager.loggerDict):
        if name.endswith("ray/train/v2/_internal/execution/context.py"):
            logging.getLogger(name).setLevel(logging.WARNING)
    quieten_ray_data()


def quieten_ray_data() -> None:
    """Keep Ray Data's warnings, leave out its account of every pipeline's start and end."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # It warns in every process that progress bars are off, as they are here: jobs tell their own progress.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def _object_store_bytes() -> int:
    """A quarter of the memory, at most 2 GiB: batches in flight are small and shared memory may be scarce."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(2 * 1024**3, total // 4))
