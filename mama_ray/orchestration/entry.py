"""How every program in jobs/ starts and ends: arguments in, exit status and one last line out.

Exit status: 0 done, the last line of stdout names where the result lies; 1 failed, the last line of stderr says why; 2 bad
usage or config; 130 and 143 stopped by Ctrl-C and by SIGTERM, as shells count them.
"""

import logging
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from mama_ray.config import Config, ConfigError, parse_config
from mama_ray.errors import UserError

logger = logging.getLogger(__name__)

_DONE, _FAILED, _BAD_USAGE = 0, 1, 2
_RESUMES = "started again with the same --storage and --run, a run goes on from its last checkpoint"
# The last line of a remote traceback, for a cause that could only be sent as text.
_TOLD_IN_TEXT = re.compile(r"^(?:mama_ray\.[\w.]+\.)?(?:UserError|ConfigError): (.+)$", re.MULTILINE)


class _Terminated(BaseException):
    """SIGTERM has arrived."""


def run_job(
    config_class: type[Config],
    run: Callable[..., str],
    *,
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Read the config from the command line, do `run(config)` and leave the process with the job's exit status.

    `run` returns the line that names where the result lies. `argv` is without the program's name; None takes the process's.
    """
    try:
        config = parse_config(config_class, argv, prog=_program(), description=description)
    except ConfigError as error:
        _leave(_BAD_USAGE, f"error: {error}")
    _start_logging()
    # Ray replaces this handler when it starts: then SIGTERM comes as SystemExit(15) out of `run`. Both are told alike below.
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        line = run(config)
    except Exception as error:  # noqa: BLE001 - the end of the program: whatever it is becomes an exit status and a line
        _leave(*_failure(error))
    except (KeyboardInterrupt, SystemExit, _Terminated) as stop:
        _leave(*_interruption(stop))
    _leave(_DONE, line)


def find_user_error(error: BaseException) -> UserError | None:
    """Return the UserError that an exception stands for, through the wrappers that Ray puts around it; None if there is none."""
    seen: set[int] = set()
    pending = [error]
    told: UserError | None = None
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        inner = list(_causes(current))
        pending.extend(inner)
        # Ray raises one that is of both classes, its own and the cause's; the cause itself has the short text.
        if isinstance(current, UserError) and not hasattr(current, "traceback_str"):
            return current
        if told is None and not inner and (found := _TOLD_IN_TEXT.findall(str(current))):
            told = UserError(found[-1])
    return told


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception wraps: Python's chain, RayTaskError's cause, Ray Train's failures per worker."""
    failures = getattr(error, "worker_failures", None)
    candidates = [getattr(error, name, None) for name in ("cause", "controller_failure", "__cause__", "__context__")]
    candidates += list(failures.values()) if isinstance(failures, dict) else []
    yield from (candidate for candidate in candidates if isinstance(candidate, BaseException))


def _failure(error: Exception) -> tuple[int, str]:
    """Return exit status and last line for what `run` raised; what nobody foresaw is logged with its traceback."""
    user_error = find_user_error(error)
    if isinstance(user_error, ConfigError):
        return _BAD_USAGE, f"error: {user_error}"
    if user_error is not None:
        return _FAILED, f"error: {user_error}"
    sys.stderr.write("".join(traceback.format_exception(error)))
    first_line = next((line for line in str(error).splitlines() if line.strip()), "")
    root = _root_cause(error)
    if root is not error:
        return _FAILED, f"error: {type(root).__name__}: {_last_line(root)} (raised as {type(error).__name__})"
    hint = "; `make setup` installs what is missing" if isinstance(error, ImportError) else ""
    return _FAILED, f"error: {type(error).__name__}: {first_line}{hint}"


def _root_cause(error: BaseException) -> BaseException:
    """Follow the first cause of each to the end of the chain."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        error = next((cause for cause in _causes(error) if id(cause) not in seen), error)
    return error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _interruption(stop: BaseException) -> tuple[int, str]:
    code = stop.code if isinstance(stop, SystemExit) else None
    if isinstance(stop, _Terminated) or code == signal.SIGTERM:
        return 128 + signal.SIGTERM, f"stopped by SIGTERM; {_RESUMES}"
    if isinstance(stop, KeyboardInterrupt) or code in (0, None):  # Ray Train leaves with 0 after Ctrl-C
        return 128 + signal.SIGINT, f"stopped by Ctrl-C; {_RESUMES}"
    return (code, f"error: exit status {code}") if isinstance(code, int) else (_FAILED, f"error: {code}")


def _leave(status: int, line: str) -> NoReturn:
    """Write the last line, after Ray has said its own, and end the process."""
    if status != _BAD_USAGE:
        _shut_ray_down()
    stream = sys.stdout if status == _DONE else sys.stderr
    sys.stdout.flush()
    stream.write(" ".join(line.split()) + "\n")
    stream.flush()
    sys.exit(status)


def _shut_ray_down() -> None:
    """End or leave Ray now, not at exit: what its processes still log must not follow our last line."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


def _start_logging() -> None:
    """Log this package from INFO, others from WARNING, on stderr; Ray gives the workers' lines their own prefix."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("mama_ray").setLevel(logging.INFO)


def _program() -> str:
    return sys.argv[0] or "python"


def _raise_terminated(signum: int, frame: object) -> NoReturn:
    raise _Terminated
