"""Files in memory by which a process and its child hand each other what is large."""

import os
from typing import IO


def file_in_memory(name: str) -> IO[bytes]:
    """Return an empty file of that name, which is open and lies nowhere on a disk."""
    return os.fdopen(os.memfd_create(f"mama_ray-{name}"), "w+b", buffering=0)


def write_whole(file: IO[bytes], data: bytes) -> None:
    """Write from the beginning."""
    file.seek(0)
    rest = memoryview(data)
    while rest:  # one write takes 2 GiB less a page
        rest = rest[file.write(rest) :]


def path_of(file: IO[bytes]) -> str:
    """Return the path by which the child opens a file that it inherited, from the beginning."""
    return f"/proc/self/fd/{file.fileno()}"
