"""The file of a lease: made only where there is none, changed only where it is still what was seen.

On a disk a hard link makes it and a lock guards its change, both of which NFS keeps; S3 does either by the conditions
of a PUT. Other storages, and some that speak as S3 does, know no such conditions: there the file is looked at before
and after, which leaves a gap of moments for two starts at once.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mama_ray.storage.places import Place
from mama_ray.storage.s3 import AT_WORK, s3_client, s3_errors

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 16  # no lease is longer: what is, or is no plain file, is none of ours
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
_SETTLE_S = 1.0  # until a storage without conditions shows who wrote last


@dataclass(frozen=True)
class Content:
    """What was seen of a lease's file; `version` tells the storage which of them it was."""

    data: bytes
    version: Any


class LeaseFile(Protocol):
    """What a storage does for a lease; what it cannot do raises OSError."""

    def read(self) -> Content | None:
        """Return what is there, None for nothing."""

    def create(self, data: bytes) -> Content | None:
        """Write a file where there is none; None where there is one."""

    def replace(self, data: bytes, seen: Content) -> Content | None:
        """Put another's file out of its place; None where it is no longer what was seen."""

    def refresh(self, data: bytes, seen: Content) -> Content | None:
        """Change one's own file, to data of the same length; None where it is another's, or gone."""

    def delete(self, seen: Content) -> None:
        """Delete one's own file, which was refreshed just now: whoever watches it waits much longer than this takes.

        So it needs no condition, which of stores not even all of S3 know for this.
        """


def lease_file(place: Place) -> LeaseFile:
    """Return the file of a lease at a place of any storage."""
    if place.is_local:
        return _LocalFile(Path(place.path))
    return _S3File(place) if place.is_s3 else _OtherFile(place)


class _LocalFile:
    """A file that others may see torn while it is refreshed, where only the digits of a counter differ.

    A file that is taken over is another inode. So who was suspended while refreshing the old one spoils nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Content | None:
        try:
            with self._opened(os.O_RDONLY) as descriptor:
                return _content_of(descriptor)
        except FileNotFoundError:
            return None

    def create(self, data: bytes) -> Content | None:
        with self._written_beside(data) as temporary:
            try:
                os.link(temporary, self._path)
            except FileExistsError:
                if temporary.stat().st_nlink != 2:  # 2: NFS made the link, and its answer was lost
                    return None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                try:
                    self._write_new(self._path, data)
                except FileExistsError:
                    return None
        for left in self._path.parent.glob(f"{self._path.name}.*.tmp"):  # by who was killed at this very point
            left.unlink(missing_ok=True)
        return self.read()

    def replace(self, data: bytes, seen: Content) -> Content | None:
        with self._as_seen(seen) as descriptor:
            if descriptor is None:
                return None
            with self._written_beside(data) as temporary:
                os.replace(temporary, self._path)
            return self.read()

    def refresh(self, data: bytes, seen: Content) -> Content | None:
        try:
            with self._opened(os.O_RDWR) as descriptor:
                if _content_of(descriptor) != seen:
                    return None
                os.pwrite(descriptor, data, 0)  # in place: it works on a full disk, too
                return Content(data, seen.version)
        except FileNotFoundError:
            return None

    def delete(self, seen: Content) -> None:
        with self._as_seen(seen) as descriptor:
            if descriptor is not None:
                self._path.unlink()

    @contextlib.contextmanager
    def _as_seen(self, seen: Content) -> Iterator[int | None]:
        """Lock the file and yield its descriptor, or None where it is no longer what was seen."""
        with contextlib.ExitStack() as stack:
            descriptor = None
            with contextlib.suppress(FileNotFoundError):
                try:
                    descriptor = stack.enter_context(self._opened(os.O_RDWR))  # NFS wants it for a lock
                except PermissionError:  # another user's, in a folder that both may write to
                    descriptor = stack.enter_context(self._opened(os.O_RDONLY))
            if descriptor is not None:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # another start is at this very point
                    descriptor = None
                except OSError:  # some disks of the network have no locks
                    pass
            yield descriptor if descriptor is not None and self.read() == seen else None

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        descriptor = os.open(self._path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _written_beside(self, data: bytes) -> Iterator[Path]:
        temporary = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._write_new(temporary, data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def _write_new(path: Path, data: bytes) -> None:
        with path.open("xb") as stream:
            stream.write(data)


def _content_of(descriptor: int) -> Content:
    facts = os.fstat(descriptor)
    data = os.pread(descriptor, _MAX_BYTES, 0) if stat.S_ISREG(facts.st_mode) else b""
    return Content(data, (facts.st_dev, facts.st_ino))


class _S3File:
    """An object; `version` is its ETag."""

    def __init__(self, place: Place) -> None:
        bucket, _, key = place.path.partition("/")
        self._name = {"Bucket": bucket, "Key": key}
        self._client = s3_client(AT_WORK)
        self._takes_conditions = True

    def read(self) -> Content | None:
        answer = self._ask("get_object")
        if answer is None:
            return None
        with contextlib.closing(answer["Body"]) as body:
            return Content(body.read(_MAX_BYTES), answer["ETag"])

    def create(self, data: bytes) -> Content | None:
        return self._put(data, IfNoneMatch="*")

    def replace(self, data: bytes, seen: Content) -> Content | None:
        return self.refresh(data, seen)

    def refresh(self, data: bytes, seen: Content) -> Content | None:
        if self.read() != seen:  # a store that passes over conditions would write over another's
            return None
        return self._put(data, IfMatch=seen.version)

    def delete(self, seen: Content) -> None:
        self._ask("delete_object")

    def _put(self, data: bytes, **condition: str) -> Content | None:
        answer = self._put_once(data, condition)
        if not self._takes_conditions:
            time.sleep(_SETTLE_S)
        there = self.read()  # of a PUT whose answer was lost, or by a store that passes over conditions
        if there is not None and there.data == data:
            return there
        if answer is not None:
            logger.warning("%s does not keep the conditions of a PUT", "/".join(self._name.values()))
        return None

    def _put_once(self, data: bytes, condition: dict[str, str]) -> Any:
        if self._takes_conditions:
            try:
                return self._ask("put_object", Body=data, **condition)
            except NotImplementedError:
                self._takes_conditions = False
        return self._ask("put_object", Body=data)

    def _ask(self, operation: str, **arguments: Any) -> Any:
        """Return the answer; None for an object that is not there, or not as the condition has it."""
        from botocore.exceptions import ClientError

        with s3_errors():
            try:
                return getattr(self._client, operation)(**self._name, **arguments)
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status in (404, 409, 412) and error.response.get("Error", {}).get("Code") != "NoSuchBucket":
                    return None
                if status == 501 and arguments.keys() & {"IfMatch", "IfNoneMatch"}:  # some stores know neither
                    raise NotImplementedError(str(error)) from error
                raise


class _OtherFile:
    """A file of a storage that knows no conditions."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def read(self) -> Content | None:
        try:
            with self._place.open_stream() as stream:
                data = stream.read(_MAX_BYTES)
            return Content(data, None)
        except FileNotFoundError:
            return None

    def create(self, data: bytes) -> Content | None:
        return self._write(data) if self.read() is None else None

    def replace(self, data: bytes, seen: Content) -> Content | None:
        return self._write(data) if self.read() == seen else None

    def refresh(self, data: bytes, seen: Content) -> Content | None:
        if self.read() != seen:
            return None
        self._place.write_whole(data)
        return Content(data, None)

    def delete(self, seen: Content) -> None:
        if self.read() == seen:
            self._place.delete_file()

    def _write(self, data: bytes) -> Content | None:
        self._place.write_whole(data)
        time.sleep(_SETTLE_S)
        return there if (there := self.read()) is not None and there.data == data else None
