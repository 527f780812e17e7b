"""Lines of Ray, vLLM, torch and the hub that a user can do nothing about, hidden from a job's console by name.

MAMA_RAY_ALL_LINES=1 shows them. What is hidden is a list (NOISE) that says of each line why; whatever it does not name
is shown, errors and warnings of these libraries among them. Ray's own log files hold everything in either case.
"""

import contextlib
import logging
import os
import re
import select
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mama_ray.errors import printable
from mama_ray.masking import mask_text

SHOW_ALL = "MAMA_RAY_ALL_LINES"
_RAY_HANDLER = "ray_print_logs"  # Ray's own name for what prints its workers' lines in the driver


@dataclass(frozen=True)
class Noise:
    """Lines that match a pattern (re.search), and why nobody need see them."""

    name: str
    pattern: str
    reason: str


NOISE = (
    Noise("token", r"Token authentication is enabled for this Ray cluster", "Ray's default, and nothing to do"),
    Noise("absl", r"All log messages before absl::InitializeLog\(\)", "of gRPC, about its own log"),
    Noise("grpc fork", r"skipping fork\(\) handlers", "of gRPC, does no harm"),
    Noise(
        "actor's arguments",
        r"has constructor arguments in the object store and max_restarts > 0",
        "of Ray Data's own actors, whose arguments their driver holds (ray#53727)",
    ),
    Noise(
        "metrics exporter",
        r"Metrics agent client is not connected yet|Failed to (establish connection to|export metrics to) the metrics",
        "Ray's agent starts after its node; metrics follow",
    ),
    Noise("accelerators", r"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "tells what a later Ray will do"),
    Noise("for authors", r"(FutureWarning|DeprecationWarning):|^\s+warnings\.warn\(", "for the libraries' authors"),
    Noise(
        "progress bar",
        r"^\s*(Loading|Fetching|Downloading|Writing|Processed|Adding|Materializing|model\S*\.safetensors)\b"
        r".*\d+%( Completed)? ?\|",
        "a bar that a log cannot redraw: what takes long is told in lines",
    ),
    Noise("triton", r"Triton is installed,? but", "vLLM needs none on a CPU"),
    Noise("numa", r"NUMA binding: Using MEMBIND policy", "of vLLM on a CPU, all is well"),
    Noise("gloo", r"\[Gloo\] Rank \d+ is connected to \d+ peer ranks", "of torch, all is well"),
)
# Ray's compiled code tells of a SIGTERM by the stack of the moment; the frames of a crash are shown.
_TOLD_SIGTERM = re.compile(r"\*\*\* SIGTERM received|@\s+0x[0-9a-f]+|@ \.\.\. and at least")
_PATTERN = re.compile("|".join(f"(?:{noise.pattern})" for noise in NOISE))


def spell_control_characters(record: logging.LogRecord) -> bool:
    """Let a log's handler show names of files and texts of others without the letters that steer a terminal."""
    text = record.getMessage()
    plain = "\n".join(map(printable, text.split("\n")))
    if plain != text:
        record.msg, record.args = plain, None
    return True


def is_noise(line: str) -> bool:
    """Tell whether a line is one of the list."""
    return _PATTERN.search(line) is not None


def shows_all_lines() -> bool:
    """Whether the user asked to see everything."""
    return os.environ.get(SHOW_ALL, "") not in ("", "0")


def _tells_sigterm(line: str, in_stack: bool) -> bool:
    """Tell whether a line is one of a SIGTERM's stack; `in_stack` says so of the line before."""
    found = _TOLD_SIGTERM.search(line)
    return found is not None and (in_stack or "SIGTERM" in found[0])


class NoiseFilter(logging.Filter):
    """Lets through what is no noise."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be shown."""
        return not is_noise(record.getMessage())


def hide_noise() -> None:
    """Hide the list's lines in this process: of its loggers, and of the workers whose lines Ray prints here.

    Called before Ray starts and after; again it changes nothing.
    """
    if shows_all_lines():
        return
    # Here, not above: a job's program knows of the list before it needs Ray.
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    for logger in (logging.getLogger(), logging.getLogger("ray")):
        for handler in logger.handlers:
            if not any(isinstance(one, NoiseFilter) for one in handler.filters):
                handler.addFilter(NoiseFilter())
    for name, handle in list(dispatcher.handlers):
        if name == _RAY_HANDLER and not isinstance(handle, _Hiding):
            dispatcher.remove_handler(name)
            dispatcher.add_handler(name, _Hiding(handle))


class _Hiding:
    """Hands on what Ray received of a worker, without the noise; under Ray's own name, so that Ray takes it away."""

    def __init__(self, handle: Callable[[dict], None]) -> None:
        self._handle = handle

    def __call__(self, data: dict) -> None:
        lines = [line for line in data["lines"] if not is_noise(line)]
        if lines:
            self._handle(data | {"lines": lines})


class FilteredStderr:
    """Takes noise and secrets out of what compiled code, such as Ray's, writes to file descriptor 2 of this process.

    Python's own `sys.stderr` goes on to where it went, past the filter: a terminal stays one.
    """

    def __init__(self) -> None:
        """Put the filter in; where the user wants to see all lines it masks secrets and no more."""
        self._target: int | None = None
        self._is_over = threading.Event()
        self._shows_all = shows_all_lines()
        sys.stderr.flush()
        self._python_stderr, self._target = sys.stderr, os.dup(2)
        self._reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)
        sys.stderr = os.fdopen(os.dup(self._target), "w", buffering=1, errors="backslashreplace")
        threading.Thread(target=self._copy, args=(self._target,), name="filter-stderr", daemon=True).start()

    def close(self) -> None:
        """Hand on what was written and take the filter out: nothing may follow a job's last line."""
        if self._target is None:
            return
        os.dup2(self._target, 2)
        # The pipe stays open where a child process has it, so its end is not waited for.
        while select.select([self._reader], [], [], 0.02)[0] and not self._is_over.is_set():
            self._is_over.wait(0.01)
        with contextlib.suppress(OSError):  # a full disk takes no more lines; the job's status still counts
            sys.stderr.flush()
        sys.stderr, self._target = self._python_stderr, None

    def _copy(self, target: int) -> None:
        with os.fdopen(self._reader, "rb", closefd=False) as lines:
            in_stack = False
            for line in lines:
                text = line.decode(errors="replace")
                in_stack = _tells_sigterm(text, in_stack)
                if self._shows_all or not (in_stack or is_noise(text)):
                    masked = mask_text(text)
                    with contextlib.suppress(OSError):
                        os.write(target, line if masked == text else masked.encode())
        self._is_over.set()
