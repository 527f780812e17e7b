"""A place in a storage: a file or folder on this machine's disk, in S3, in gs:// or in whatever fsspec knows.

What reads or writes takes a `Place` and never asks which storage it is. Credentials, endpoint, region and profile come
from the environment, as users of boto expect; none is accepted inside a URI.
"""

import contextlib
import logging
import stat
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from mama_ray.errors import UserError
from mama_ray.masking import holds_credentials
from mama_ray.storage import large_copy
from mama_ray.storage.failures import as_storage_error, told_of_storage
from mama_ray.storage.s3 import AT_WORK, Patience
from mama_ray.storage.small_files import (
    MAX_FILE_BYTES,
    MAX_JSON_BYTES,
    FileTooLarge,
    parse_json,
    read_at_most,
    require_regular,
)
from mama_ray.storage.uris import absolute_uri, is_local_uri, join_uri, open_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A file or folder of a storage, there or not yet. Pickled by its URI: each process opens the storage itself.

    Attributes:
        uri: as a user would write it; a local path is absolute.
        path: inside the filesystem.
    """

    filesystem: pafs.FileSystem = field(compare=False, repr=False)
    path: str
    uri: str

    @classmethod
    def of(cls, uri: str | Path, *, patience: Patience = AT_WORK) -> "Place":
        """Return the place of a local path or URI; `patience` is with S3.

        A relative local path is made absolute, because tasks on other nodes have another working directory. Raises
        UserError for a URI that holds credentials or that nothing here can open.
        """
        uri = str(uri)
        if "://" in uri and holds_credentials(uri):
            raise UserError(
                "credentials inside a URI", got=f"{uri.partition('://')[0]}://***", remedy="put them in the environment"
            )
        if is_local_uri(uri):
            path = absolute_uri(uri.removeprefix("file://"))
            return cls(pafs.LocalFileSystem(), path, path)
        filesystem, path = open_uri(uri, patience)
        return cls(filesystem, path, path if "://" in path else f"{uri.partition('://')[0]}://{path}")

    def __reduce__(self) -> tuple[Callable[[str], "Place"], tuple[str]]:
        return Place.of, (self.uri,)

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Place":
        return Place(self.filesystem, f"{self.path}/{name}", join_uri(self.uri, name))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> "Place":
        """The folder it lies in."""
        return Place(self.filesystem, self.path.rpartition("/")[0], self.uri.rstrip("/").rpartition("/")[0])

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's own disk."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def is_s3(self) -> bool:
        """Whether it is in an S3 that Arrow itself speaks to."""
        return isinstance(self.filesystem, pafs.S3FileSystem)

    def info(self) -> pafs.FileInfo:
        """Return type, size and time of what is here."""
        return self.filesystem.get_file_info(self.path)

    def exists(self) -> bool:
        """Tell whether there is a file or folder here."""
        return self.info().type != pafs.FileType.NotFound

    def is_file(self) -> bool:
        """Tell whether there is a file here."""
        return self.info().is_file

    def entries(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """Return what lies in the folder, sorted by path; nothing where there is no folder. One request for 1,000."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        found = self.filesystem.get_file_info(selector)
        named = {path: info for info in found if (path := _path_of(info)) is not None}
        if len(named) < len(found):
            logger.warning("%s: %d names that are no UTF-8 are left out", self, len(found) - len(named))
        return [named[path] for path in sorted(named)]

    def files(self, *, recursive: bool = False) -> list["Place"]:
        """Return the files in the folder, sorted by path; nothing where there is no folder."""
        return [self.at(info.path) for info in self.entries(recursive=recursive) if info.is_file]

    def at(self, path: str) -> "Place":
        """Return the place of a path below this one, as `entries` gives it."""
        return self / path.lstrip("/").removeprefix(f"{self.path.strip('/')}/")  # some of fsspec's begin with a slash

    def open_stream(self) -> pa.NativeFile:
        """Open the file to be read from its start on."""
        self._require_regular()
        return self.filesystem.open_input_stream(self.path)

    def open_file(self) -> pa.NativeFile:
        """Open the file to be read at any offset."""
        self._require_regular()
        return self.filesystem.open_input_file(self.path)

    def _require_regular(self) -> None:
        if self.is_local:
            require_regular(self.path)

    def read_bytes(self, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Read a small file; UserError where it is larger, or a pipe or device."""
        with self.open_stream() as stream:
            return read_at_most(stream, max_bytes, self)

    def read_text(self, max_bytes: int = MAX_FILE_BYTES) -> str:
        """Read a small file of UTF-8 text."""
        return self.read_bytes(max_bytes).decode()

    def read_json(self) -> Any:
        """Read a small JSON file with one object; None when it is missing or anything else.

        Raises FileTooLarge for one that may be whole, but is no small file.
        """
        try:
            content = parse_json(self.read_bytes(MAX_JSON_BYTES), self)
        except FileTooLarge:
            raise
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def write_whole(self, content: bytes | str | Callable[[BinaryIO], object]) -> None:
        """Write a small file, whole or not at all; `content` may be what writes it into a stream.

        It is one request to an object store, whose objects appear whole. Elsewhere the file gets its name when it is
        complete, and its folder is made where there is none.
        """
        if isinstance(content, (bytes, str)):
            data = content.encode() if isinstance(content, str) else content
        else:
            sink = pa.BufferOutputStream()
            content(sink)
            data = sink.getvalue()
        if isinstance(self.filesystem, (pafs.S3FileSystem, pafs.GcsFileSystem)):
            if threading.current_thread() is not threading.main_thread():
                self._put(data)
                return
            # A stream that an interrupt closes would leave an empty object: none reaches another thread than the first.
            with ThreadPoolExecutor(1, thread_name_prefix="write") as thread:
                thread.submit(self._put, data).result()
            return
        self.parent.make_folder()
        with self.open_whole() as stream:
            stream.write(data)

    def _put(self, data: bytes | pa.Buffer) -> None:
        with self.filesystem.open_output_stream(self.path) as stream:
            stream.write(data)

    @contextlib.contextmanager
    def open_whole(self) -> Iterator[BinaryIO]:
        """Yield a stream for a file of any size, which gets its name only when the block ends without an error.

        An object store copies it once to give it the name: S3 by parts where it has more than 5 GiB.
        """
        temporary = f"{self.path}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with self.filesystem.open_output_stream(temporary) as stream:
                yield stream
                num_bytes = stream.tell() if self.is_s3 and not stream.closed else 0
            if num_bytes > large_copy.MAX_COPY_BYTES:
                large_copy.move_by_parts(temporary, self.path, num_bytes)
            else:
                self.filesystem.move(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self.filesystem.delete_file(temporary)
            raise

    def make_folder(self) -> None:
        """Make the folder and those above it, where the storage knows folders: S3 has none, and asks a request each."""
        if not self.is_s3:
            self.filesystem.create_dir(self.path, recursive=True)

    def delete_file(self) -> None:
        """Delete the file."""
        self.filesystem.delete_file(self.path)

    def delete_folder(self) -> None:
        """Delete the folder with all that is in it."""
        self.filesystem.delete_dir(self.path)

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        """Give a local folder with the content of this one: itself if it is local, else a temporary download."""
        if self.is_local:
            yield Path(self.path)
            return
        with tempfile.TemporaryDirectory(prefix="mama_ray-download-") as directory:
            disk = pafs.LocalFileSystem()
            pafs.copy_files(self.path, directory, source_filesystem=self.filesystem, destination_filesystem=disk)
            yield Path(directory)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield another name beside a local path, for what writes files by name; the file is renamed when the block ends
    without an error.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        set_usual_modes(path.parent, [temporary])
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise


def set_usual_modes(folder: Path, files: Iterable[Path]) -> None:
    """Give files the permissions of any new file in `folder`, as umask and the folder's own defaults make them.

    Some libraries write for the owner alone, and a colleague on a shared disk could not read a model.
    """
    probe = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in files:
        if stat.S_IMODE(file.stat().st_mode) != mode:
            with contextlib.suppress(PermissionError):  # of a disk that knows no permissions
                file.chmod(mode)


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn what the storage refuses into one UserError: it names the place, what was said, and the remedy.

    The folder for temporary files is named where that is what failed.
    """
    try:
        yield
    except Exception as raised:
        error = as_storage_error(raised)
        if error is None:
            raise
        raise told_of_storage(error, uri) from raised


def _path_of(info: pafs.FileInfo) -> str | None:
    """Return the path of what lies in a folder; None where it is no UTF-8, which Arrow's paths are."""
    try:
        return info.path
    except UnicodeDecodeError:
        return None
