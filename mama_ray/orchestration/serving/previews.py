"""Poster frames and previews of clips: made in the guarded decoding process, kept in a bounded folder.

A decoder may crash or hang on a hostile clip: its child process dies of that and the clip gets a reason. Few are made
at a time, in the order in which they were asked for, and each once for all who ask.
"""

import asyncio
import contextlib
import io
import logging
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from fastapi import HTTPException, Request
from fastapi.responses import FileResponse, Response
from PIL import Image

from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guarded import guard_of, sampled_frames
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.serving.catalog import ClipRecord
from mama_ray.storage.places import Place, set_usual_modes

logger = logging.getLogger(__name__)

POSTER_SIDE = 224
_NUM_AT_ONCE = max(1, min(4, (os.cpu_count() or 2) // 2))
_MOST_WAITING = 512
_REASON_KEPT_S = 300.0  # a clip that cannot be decoded is not tried again for every look at a page
_MOST_REASONS = 4096
_TRIM_TO = 0.8  # of the limit, so that not every new file trims
_PLAYED = {"mp4": ("h264", "av1", "vp9"), "mov": ("h264",), "m4v": ("h264",)} | dict.fromkeys(
    ("webm", "mkv"), ("vp8", "vp9", "av1", "h264")
)


class Stored(Protocol):
    """A video as far as it matters to a browser."""

    @property
    def codec(self) -> str:
        """Name of its codec, as FFmpeg has it."""
        ...

    @property
    def extension(self) -> str:
        """Extension of its file, in lower case."""
        ...


def plays_in_browsers(record: Stored) -> bool:
    """Tell whether browsers play a video's bytes as they are."""
    return record.codec in _PLAYED.get(record.extension, ())


class Previews:
    """Makes pictures and previews of clips, each once, and keeps them up to a number of bytes."""

    def __init__(self, shards: Place, folder: Path, decode: DecodeConfig, max_bytes: int) -> None:
        self._shards, self._folder, self._decode, self._max_bytes = shards, folder, decode, max_bytes
        self._pool = ThreadPoolExecutor(_NUM_AT_ONCE, thread_name_prefix="previews")
        self._making: dict[str, asyncio.Future] = {}
        self._reasons: dict[str, tuple[float, str]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.tmp"):  # of a process that was killed
            left.unlink(missing_ok=True)

    async def poster(self, record: ClipRecord) -> bytes:
        """Return a frame from the middle as JPEG. Raises HTTPException 422 with the reason where there is none."""
        path = await self._made(f"{record.sha256}.jpg", lambda to: self._write_poster(record, to))
        return await asyncio.to_thread(path.read_bytes)

    async def preview(self, record: ClipRecord, request: Request) -> Response:
        """Answer with the clip as H.264, without sound. Raises as `poster` does."""
        path = await self._made(f"{record.sha256}.mp4", lambda to: self._write_preview(record, to))
        return FileResponse(path, media_type="video/mp4", headers={"cache-control": "private, max-age=86400"})

    async def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        path = self._folder / name
        if path.exists():
            with contextlib.suppress(OSError):
                os.utime(path)  # what was used last is kept longest
            return path
        told_at, reason = self._reasons.get(name, (-_REASON_KEPT_S, ""))
        if time.monotonic() - told_at < _REASON_KEPT_S:
            raise HTTPException(422, reason)
        if name not in self._making:
            if len(self._making) >= _MOST_WAITING:
                raise HTTPException(503, "too many previews are being made", {"retry-after": "2"})
            making = asyncio.get_running_loop().run_in_executor(self._pool, self._make, path, write)
            self._making[name] = making
            making.add_done_callback(lambda _: self._making.pop(name, None))
        try:
            await asyncio.shield(self._making[name])
        except (DecodeError, ShardError) as error:
            self._remember(name, " ".join(str(error).split()))
            raise HTTPException(422, self._reasons[name][1]) from error
        except OSError as error:
            logger.warning("no preview %s: %s", name, error)
            raise HTTPException(503, "this machine has no room for the preview") from error
        return path

    def _remember(self, name: str, reason: str) -> None:
        while len(self._reasons) >= _MOST_REASONS:
            self._reasons.pop(next(iter(self._reasons)))
        self._reasons[name] = time.monotonic(), f"the clip cannot be shown: {reason}"

    def _make(self, path: Path, write: Callable[[Path], None]) -> None:
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            write(temporary)
            set_usual_modes(path.parent, [temporary])
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._trim(made=path)

    def _write_poster(self, record: ClipRecord, to: Path) -> None:
        frames = sampled_frames(
            self._bytes_of(record), num_frames=1, size={"short_side": POSTER_SIDE}, decode=self._decode
        )
        buffer = io.BytesIO()
        Image.fromarray(frames[0]).save(buffer, "JPEG", quality=82)
        to.write_bytes(buffer.getvalue())

    def _write_preview(self, record: ClipRecord, to: Path) -> None:
        source = to.with_name(f"{to.name}.source.tmp")
        try:
            source.write_bytes(self._bytes_of(record))
            with guard_of(self._decode) as guard:
                guard.recode(str(source), str(to))
        finally:
            source.unlink(missing_ok=True)

    def _bytes_of(self, record: ClipRecord) -> bytes:
        return read_clip_bytes(self._shards, record.shard, record.offset, record.num_bytes, sha256=record.sha256)

    def _trim(self, made: Path) -> None:
        """Delete what was used longest ago, where there is more than may be kept; what was made just now is waited for,
        and what has no name of its own yet is being made.
        """
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(found):
            if total <= _TRIM_TO * self._max_bytes:
                return
            if path != made and path.suffix != ".tmp":
                path.unlink(missing_ok=True)
                total -= size
