"""A remote storage in a local folder whose writes wait until the test lets them go on, and may be refused."""

import threading
from pathlib import Path

import fsspec
import pyarrow.fs as pafs


class BlockingStorage(pafs.FSSpecHandler):
    """Handler of a storage; open to writes until `block` is called."""

    def __init__(self) -> None:
        super().__init__(fsspec.filesystem("file", auto_mkdir=True, use_listings_cache=False))
        self._open = threading.Event()
        self._open.set()
        self.is_waiting = threading.Event()
        self.refused: str | None = None
        self.written: list[str] = []
        self.deletions_left: int | None = None

    def open_output_stream(self, path, metadata):
        if not self._open.is_set():
            self.is_waiting.set()
            self._open.wait()
        name = Path(path).name
        if name == self.refused:
            raise PermissionError(f"no leave to write {name}")
        self.written.append(name)
        return super().open_output_stream(path, metadata)

    def delete_file(self, path):
        self._count_deletion()
        super().delete_file(path)

    def delete_dir(self, path):
        self._count_deletion()
        super().delete_dir(path)

    def block(self) -> None:
        """Let every write from now on wait."""
        self._open.clear()

    def unblock(self) -> None:
        """Let all writes go on."""
        self._open.set()

    def _count_deletion(self) -> None:
        if self.deletions_left is not None:
            if self.deletions_left == 0:
                raise PermissionError("cut off")
            self.deletions_left -= 1
