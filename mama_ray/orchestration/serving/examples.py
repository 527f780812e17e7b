"""Uploaded clips as examples: encoded once by the guarded process, of which the feature alone is kept.

An example is named by the hash of its bytes, so a link to a search with it goes on working after a restart, as long as
the model is the same.
"""

import contextlib
import hashlib
import re
import uuid
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.uploads import DecodingThreads, receive

PREFIX = "example:"
_NAME = re.compile(r"example:[0-9a-f]{32}", re.ASCII)
_MOST_KEPT = 2000
_NUM_AT_ONCE = 2  # each is decoded by a process of its own, which a hostile clip makes large and slow


class Examples:
    """The features of uploaded clips, in a folder."""

    def __init__(self, folder: Path, towers: Any) -> None:
        """towers: `search.towers.Towers`, None where nothing can be encoded."""
        self._towers, self._decoding = towers, DecodingThreads(_NUM_AT_ONCE, "examples")
        self._folder = folder / (towers.model_hash[:16] if towers is not None else "none")
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.tmp"):  # of a process that was killed
            left.unlink(missing_ok=True)

    async def add(self, chunks: AsyncIterable[bytes], *, max_bytes: int, expected_bytes: int | None = None) -> str:
        """Take a clip as it streams in; returns its name. Whatever ends the stream, nothing of the clip stays here.

        Raises what `receive` does, and UserError, with the reason, for a clip that cannot be used.
        """
        if self._towers is None:
            raise UserError("there is no encoder that could read the clip")
        path = self._folder / f"{uuid.uuid4().hex}.tmp"
        try:
            await receive(chunks, path, max_bytes=max_bytes, expected_bytes=expected_bytes)
            name = await anyio.to_thread.run_sync(_name_of, path)
            if self.feature(name) is None:
                self._keep(name, await self._decoding.run(self._towers.embed_video, path))
            return name
        finally:
            path.unlink(missing_ok=True)

    def feature(self, name: str) -> np.ndarray | None:
        """Return the feature of an example, float32 (dim,); None where there is no such example."""
        if not name.startswith(PREFIX):
            return None
        if _NAME.fullmatch(name):
            with contextlib.suppress(OSError, ValueError, EOFError):  # also of a file that a power failure cut
                return np.load(self._path(name), allow_pickle=False).astype(np.float32)
        return None

    def _keep(self, name: str, feature: np.ndarray) -> None:
        temporary = self._folder / f"{uuid.uuid4().hex}.tmp"
        with open(temporary, "wb") as file:
            np.save(file, feature, allow_pickle=False)
        temporary.replace(self._path(name))
        kept = sorted(self._folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)
        for old in kept[:-_MOST_KEPT]:
            old.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.removeprefix(PREFIX)}.npy"


def _name_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"{PREFIX}{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
