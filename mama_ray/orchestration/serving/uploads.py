"""A video that is sent to the app: written to the disk as it comes, stopped where it is too large, looked at, or gone.

Whatever ends an upload early, the limit, a full disk, a browser that was closed, nothing of it stays on the disk.
"""

import asyncio
import shutil
from collections.abc import AsyncIterable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guarded import guard_of
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.source import reason_of
from mama_ray.storage.failures import NO_SPACE

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_BUFFER_BYTES = 1 << 20
_KEPT_FREE_BYTES = 256 << 20  # for what is narrated meanwhile, and for all others of this disk


class DecodingThreads:
    """A few threads that wait for the decoding of what strangers sent, in the order in which they are asked.

    A hostile video holds a thread for minutes. In threads of their own such videos keep only each other waiting.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix=name)

    async def run(
        self, work: Callable[Parameters, Result], *arguments: Parameters.args, **more: Parameters.kwargs
    ) -> Result:
        """Call a function in one of the threads; returns and raises what it does."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments, **more))


class TooLarge(UserError):
    """More bytes than an upload may have."""


class NoRoom(UserError):
    """A disk that is, or would be, full."""


async def receive(stream: AsyncIterable[bytes], path: Path, *, max_bytes: int, expected_bytes: int | None) -> int:
    """Write a stream to a new file and return its length; whatever is raised, there is no file then.

    expected_bytes: what its sender says. Raises TooLarge, NoRoom, OSError, and what the stream raises.
    """
    if expected_bytes is not None:
        _require_allowed(expected_bytes, max_bytes)
        _require_room(path, expected_bytes)
    num_bytes, pending = 0, bytearray()
    try:
        with path.open("xb") as file:
            async for chunk in stream:
                num_bytes += len(chunk)
                _require_allowed(num_bytes, max_bytes)
                pending += chunk
                if len(pending) >= _BUFFER_BYTES:
                    _require_room(path, len(pending))
                    await asyncio.to_thread(file.write, pending)
                    pending = bytearray()
            await asyncio.to_thread(file.write, pending)
            await asyncio.to_thread(file.flush)
        if expected_bytes is not None and num_bytes != expected_bytes:
            raise UserError("the upload was broken off", got=f"{num_bytes} bytes", wanted=expected_bytes)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise _no_room(path) from error
        raise
    return num_bytes


def told_length(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes the sender of a request says that it has; None where it does not say."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


@dataclass(frozen=True)
class UploadedVideo:
    """What a look at an upload told; `codec` is empty where its frames could not be tried."""

    duration_s: float
    codec: str


def look_at_upload(path: Path, decode: DecodeConfig) -> UploadedVideo:
    """Return what a video is, decoded by the guarded process alone.

    Raises UserError where it cannot be used, and OSError where the disk fails.
    """
    cut = path.with_name(f"{path.name}.cut.part")  # which is never written of a whole file
    try:
        with guard_of(decode) as guard:
            told = guard.open_windows(str(path), [], {"num_frames": 1, "rule": "spread", "size": {"short_side": 16}})
            try:
                codec = guard.inspect(str(path), 0.0, None, str(cut))["codec"]
            except DecodeError:  # its windows say why, each for itself
                codec = ""
    except DecodeError as error:
        raise UserError("the video cannot be used", got=reason_of(error).replace(f"{path.parent}/", "")) from error
    finally:
        cut.unlink(missing_ok=True)
    if told["duration_s"] <= 0:
        raise UserError("the video cannot be used", got="a video without duration")
    return UploadedVideo(told["duration_s"], codec)


def _require_allowed(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        limit = f"at most {max_bytes / 2**20:,.0f} MiB" if max_bytes >= 1 << 20 else f"at most {max_bytes} bytes"
        raise TooLarge("the video is too large", wanted=limit, remedy="cut it, or start the app with a higher limit")


def _require_room(path: Path, num_bytes: int) -> None:
    if shutil.disk_usage(path.parent).free - num_bytes < _KEPT_FREE_BYTES:
        raise _no_room(path)


def _no_room(path: Path) -> NoRoom:
    got = f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free"
    return NoRoom("no room left on the app's disk", got=got, remedy="delete narrations, or free some room there")
