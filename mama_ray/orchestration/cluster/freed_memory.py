"""What a driver has freed goes back to the system, and does not stay in the arenas of threads that have ended.

glibc gives the threads of a process up to eight arenas for each core and keeps what is freed in them. Each pipeline of
Ray Data has threads of its own, which may use other arenas than those of the last one: 2 to 3 kB for each block stay.
Other C libraries are left to their own ways.
"""

import ctypes
import gc
import logging

logger = logging.getLogger(__name__)

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def share_one_arena() -> None:
    """Let the threads that begin from now on allocate where this process's first thread does.

    To be called before Ray starts its threads. The small allocations of a thread are its own all the same, so that
    threads hardly wait for each other.
    """
    if (mallopt := _glibc("mallopt")) is not None and not mallopt(_ARENA_MAX, 1):
        logger.debug("glibc does not take the number of arenas")


def give_back_memory() -> None:
    """Return to the system what this process has freed, cycles of Python objects among it."""
    gc.collect()
    if (trim := _glibc("malloc_trim")) is not None:
        trim(ctypes.c_size_t(0))


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """Return a function of the C library where that is glibc."""
    library = ctypes.CDLL(None)
    return getattr(library, name, None) if hasattr(library, "gnu_get_libc_version") else None
