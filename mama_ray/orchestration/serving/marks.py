"""What a person has said of pairs of clip and caption: a file that only grows, of which the last line of a pair counts.

A mark is on the disk before it is answered. A line that a crash has cut off is no mark and hurts none after it.
"""

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

logger = logging.getLogger(__name__)

MarkName = Literal["wrong", "fine", "rewrite", ""]
_FILE = "marks.jsonl"
_MAX_TEXT = 2000


class Mark(BaseModel):
    """What is said of one caption of a clip; "" takes back what was said before."""

    model_config = ConfigDict(extra="forbid")

    clip_id: str = Field(max_length=200)
    caption_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    mark: MarkName
    text: str = Field(default="", max_length=_MAX_TEXT)
    """The better caption, of a rewrite."""


class MarkStore:
    """The marks of a folder; safe to be called from several threads of one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file, self._lock = folder / _FILE, threading.Lock()
        self._marks: dict[tuple[str, str], Mark] = {}
        content = self._file.read_bytes() if self._file.exists() else b""
        read = [_read(line) for line in content.splitlines()]
        for mark in read:
            if mark is not None:
                self._keep(mark)
        if None in read:  # they stay in the file, which is never written anew
            logger.warning("%s: %d lines are no marks and do not count", self._file, read.count(None))
        if content and not content.endswith(b"\n"):
            self._write(b"\n")

    def add(self, mark: Mark) -> None:
        """Write a mark down. Raises OSError where the disk does not take it; then it does not count."""
        line = json.dumps({**mark.model_dump(), "time_s": round(time.time(), 3)}, ensure_ascii=False)
        with self._lock:
            self._write(line.encode() + b"\n")
            self._keep(mark)

    def get(self, clip_id: str, caption_id: str) -> Mark | None:
        """Return what counts of a caption."""
        return self._marks.get((clip_id, caption_id))

    def all(self) -> list[Mark]:
        """Return the marks that count, in the order in which they were first made."""
        with self._lock:
            return list(self._marks.values())

    def _keep(self, mark: Mark) -> None:
        key = (mark.clip_id, mark.caption_id)
        if mark.mark:
            self._marks[key] = mark
        else:
            self._marks.pop(key, None)

    def _write(self, data: bytes) -> None:
        """Append in one write, so that a line is there or not, and wait for the disk."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, data) != len(data):
                    raise OSError("the disk took a part of a mark")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def _read(line: bytes) -> Mark | None:
    try:
        record = json.loads(line)
        record.pop("time_s", None)
        return Mark.model_validate(record)
    except (ValueError, AttributeError, TypeError, ValidationError, RecursionError):
        return None
