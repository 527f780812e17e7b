"""The local disk as a storage whose requests are counted and may fail."""

import threading
from collections import Counter

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs


class Storage(pafs.FSSpecHandler):
    """The local disk, with its requests counted; `fail` is asked before each opening and each read."""

    def __init__(self, fail=lambda kind, path, start: False) -> None:
        super().__init__(fsspec.filesystem("file"))
        self.fail, self.asked, self._lock = fail, Counter(), threading.Lock()

    def open_input_file(self, path):
        self._ask("open", path, 0)
        return pa.PythonFile(_File(path, self._ask), mode="r")

    def _ask(self, kind: str, path: str, start: int) -> None:
        with self._lock:
            self.asked[kind] += 1
        if self.fail(kind, path, start):
            raise OSError("When reading: AWS Error SLOW_DOWN")


class _File:
    """A file of the disk whose reads are told."""

    def __init__(self, path: str, ask) -> None:
        self._path, self._ask, self._file = path, ask, open(path, "rb")  # noqa: SIM115 - closed by `close`
        self.closed = False

    def read(self, size=-1):
        self._ask("read", self._path, self._file.tell())
        return self._file.read(size)

    def seek(self, *where):
        return self._file.seek(*where)

    def tell(self):
        return self._file.tell()

    def seekable(self):
        return True

    def readable(self):
        return True

    def close(self):
        self.closed = True
        self._file.close()
