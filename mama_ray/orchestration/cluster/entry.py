"""How every program in jobs/ starts and ends: arguments in, exit status and one last line out.

Exit status: 0 done, the last line of stdout names where the result lies; 1 failed, the last line of stderr says why;
2 bad usage or config; 130 and 143 stopped by Ctrl-C and by SIGTERM, as shells count them.
"""

import contextlib
import gc
import logging
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TextIO

from mama_ray.config import Config, ConfigError, parse_config
from mama_ray.errors import UserError, printable
from mama_ray.masking import mask_text, mask_this_process
from mama_ray.orchestration.cluster.noise import FilteredStderr, spell_control_characters
from mama_ray.orchestration.cluster.stopping import STOPPED, StopWatch, Terminated, stop_line
from mama_ray.storage.failures import (
    StorageError,
    as_storage_error,
    is_of_the_storage,
    storage_error_in,
    told_of_storage,
)
from mama_ray.storage.lease import LeaseLost, lost_lease
from mama_ray.version import installed_version

logger = logging.getLogger(__name__)

_PLACES = ("output", "storage", "shards")  # fields of jobs that say where they write
# Of Python, of NumPy, of Ray where it ended a process, and of torch on a GPU.
_OUT_OF_MEMORY = ("MemoryError", "_ArrayMemoryError", "OutOfMemoryError")
_LESS_MEMORY = (
    "end what else runs on that machine, or take smaller batches and fewer workers or actors, then start again: the "
    "job goes on from what it has saved"
)
_DONE, _FAILED, _BAD_USAGE = 0, 1, 2
_VERSION = "--version"
# Python's own words between the tracebacks of a chain, and the line that ends a traceback.
_TRACEBACK = "Traceback (most recent call last)"
_CAUSED = "The above exception was the direct cause of the following exception"
_HANDLED = "During handling of the above exception, another exception occurred"
_RAISED = re.compile(r"^(?:([\w.]+)\.)?(\w+(?:Error|Exception|Exit|Interrupt)): (.+)$", re.MULTILINE)


def run_job(
    config_class: type[Config],
    run: Callable[..., str],
    *,
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Read the config from the command line, do `run(config)` and leave the process with the job's exit status.

    `--version` prints the version instead.

    `run` returns the line that names where the result lies. `argv` is without the program's name; None takes the
    process's.
    """
    if _VERSION in (sys.argv[1:] if argv is None else argv):
        _leave(_DONE, f"mama_ray {installed_version()}")
    try:
        config = parse_config(config_class, argv, prog=_program(), description=description)
    except ConfigError as error:
        _leave(_BAD_USAGE, f"error: {error}")
    stderr = FilteredStderr()
    _start_logging()
    watch = StopWatch(why=lost_lease)
    try:
        status, line = _DONE, run(config)
    except Exception as error:
        # What fails after a signal fails of it: calls of Ray come back with errors of their own when broken off. A job
        # whose lease was lost has sent the signal itself.
        was_stopped = watch.received() and not isinstance(error, LeaseLost)
        status, line = _interruption(error, watch.received()) if was_stopped else _failure(error, config)
    except (KeyboardInterrupt, SystemExit) as stop:
        status, line = _interruption(stop, watch.received())
    _leave(status, line, stderr, watch)


def find_user_error(error: BaseException) -> UserError | None:
    """Return the UserError that an exception stands for, through the wrappers of Ray; None if there is none."""
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, UserError) and not _is_remote(link):
            return link
    for link in chain:
        for module, name, message in _told_chain(link):
            kind = getattr(sys.modules.get(module), name, object)
            if issubclass(kind, UserError):
                return StorageError(message) if issubclass(kind, StorageError) else UserError(message)
    return None


def find_machine_failure(error: BaseException, place: str) -> UserError | None:
    """Return what to tell of a full, read-only or lost disk, or of a lack of memory, that no job was looking out for.

    place: where the job writes. None for every other error.
    """
    for link in _chain(error):
        # Of another process, and of Ray Tune, which tells what its searcher raised as the text of a traceback.
        told = [(name, message) for _, name, message in _RAISED.findall(str(link))] if _TRACEBACK in str(link) else []
        for failure in [as_storage_error(link), *(storage_error_in(*one) for one in told)]:
            if failure is not None and (is_of_the_storage(failure) or "AWS Error" in str(failure)):
                return told_of_storage(failure, place)
        for name, message in [(type(link).__name__, str(link)), *told]:
            if name in _OUT_OF_MEMORY:
                return UserError("out of memory", got=f"{name}: {_first_line(message)}", remedy=_LESS_MEMORY)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it wraps, outermost first."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        link = pending.pop(0)
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            pending.extend(_causes(link))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception wraps: what it was raised from, RayTaskError's cause, Ray Train's failures per worker."""
    failures = getattr(error, "worker_failures", None)
    candidates = [getattr(error, name, None) for name in ("cause", "controller_failure", "__cause__")]
    candidates += list(failures.values()) if isinstance(failures, dict) else []
    yield from (candidate for candidate in candidates if isinstance(candidate, BaseException))


def _is_remote(error: BaseException) -> bool:
    """Tell Ray's stand-in for a worker's exception: often of the cause's class too, its text is a whole traceback."""
    return any(kind.__name__ == "RayTaskError" for kind in type(error).__mro__)


def _told_errors(error: BaseException) -> list[tuple[str, str, str]]:
    """Return module, class name and message line of what set off a remote error, as its text tells it, causes first.

    An exception loses what it was raised from when it is pickled; only the text of the remote traceback keeps it, with
    or without Python's words between cause and error.
    """
    if not _is_remote(error):
        return []
    return _RAISED.findall(str(error).split(_CAUSED)[0].split(_HANDLED)[-1])


def _told_chain(error: BaseException) -> list[tuple[str, str, str]]:
    """Return the same of all causes of a remote error: what set off a user's error may itself be another's."""
    if not _is_remote(error):
        return []
    return [told for part in str(error).split(_CAUSED) for told in _RAISED.findall(part.split(_HANDLED)[-1])]


def _failure(error: Exception, config: Config) -> tuple[int, str]:
    """Return exit status and last line for what `run` raised; what nobody foresaw is logged with its traceback."""
    places = [getattr(config, name, None) for name in _PLACES]
    place = next((place for place in places if isinstance(place, str)), tempfile.gettempdir())
    user_error = find_user_error(error) or find_machine_failure(error, place)
    if user_error is not None:
        return _BAD_USAGE if isinstance(user_error, ConfigError) else _FAILED, f"error: {user_error}"
    sys.stderr.write(mask_text("".join(traceback.format_exception(error))))
    innermost = list(_chain(error))[-1]
    name, message = type(innermost).__name__, str(innermost)
    for link in _chain(error):
        for _, told_name, told_message in _told_errors(link)[-1:]:
            name, message = told_name, told_message
    hint = "; `make setup` installs what is missing" if name in ("ImportError", "ModuleNotFoundError") else ""
    return _FAILED, f"error: {name}: {_first_line(message)}{hint}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "(no message)")


def _interruption(stop: BaseException, signals: set[int]) -> tuple[int, str]:
    """Return exit status and last line for a job that was stopped, or that called sys.exit."""
    if isinstance(stop, Terminated) or signal.SIGTERM in signals:
        return STOPPED + signal.SIGTERM, stop_line(signal.SIGTERM)
    if isinstance(stop, KeyboardInterrupt) or signal.SIGINT in signals:
        return STOPPED + signal.SIGINT, stop_line(signal.SIGINT)
    sys.stderr.write(mask_text("".join(traceback.format_exception(stop))))
    code = stop.code if isinstance(stop, SystemExit) else None
    return _FAILED, f"error: the job left by sys.exit({code!r}) before it was done"


def _leave(status: int, line: str, stderr: FilteredStderr | None = None, watch: StopWatch | None = None) -> NoReturn:
    """Write the last line, after Ray has said its own, and end the process."""
    if watch is not None:
        watch.leave()
    if status != _BAD_USAGE:
        _shut_ray_down()
    if watch is not None and status > STOPPED:
        watch.end_processes()
    if stderr is not None:
        stderr.close()
    _say(sys.stdout if status == _DONE else sys.stderr, printable(mask_text(" ".join(line.split()))) + "\n")
    if watch is not None:
        watch.cancel()
    if status > STOPPED:  # Ray's threads have been seen to abort an interpreter that ends after an interrupted call
        os._exit(status)
    sys.exit(status)


def _say(stream: TextIO | None, line: str) -> None:
    """Write a line, if it can be written: where output goes to a full disk the status still tells."""
    if stream is not None:  # as it is where it was closed before Python began
        with contextlib.suppress(OSError):
            stream.write(line)
    for one in (sys.stdout, sys.stderr):
        try:
            if one is not None:
                one.flush()
        except OSError:  # Python would try again at its end, and make another status of it
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), one.fileno())


def _shut_ray_down() -> None:
    """End or leave Ray now, not at exit: what its processes still log must not follow our last line."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        # A pipeline that what was raised still held: its thread would find Ray gone, and Ray then ends the process.
        gc.collect()
        ray.shutdown()


def _start_logging() -> None:
    """Log this package from INFO, others from WARNING, on stderr; Ray gives the workers' lines their own prefix."""
    mask_this_process()
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(spell_control_characters)
    logging.getLogger("mama_ray").setLevel(logging.INFO)


def _program() -> str:
    return sys.argv[0] or "python"
