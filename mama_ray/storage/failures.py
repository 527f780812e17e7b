"""What libraries say when a storage fails under them, each in its own way, told as the one OSError that it is.

torch, safetensors, SQLite and NumPy hide the number that the operating system gave, Arrow sometimes does; and the error
of another process comes as text.
"""

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

from mama_ray.errors import UserError

# EFBIG is what a file size limit or an old filesystem gives.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What waiting for seconds does not mend.
LASTING = (*NO_SPACE, errno.EROFS)
# A disk that is taken away or breaks: what a file there says until it is back.
TAKEN_AWAY = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN)
# Those of them, and of full and read-only disks, that no input of a user's own can bring about.
_OF_THE_STORAGE = (*LASTING, *TAKEN_AWAY, errno.ENOMEM)

# Words of Arrow, of the AWS SDK and of the operating system where a user is not let in.
NO_PERMISSION = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "EXPIRED_TOKEN",
    "ExpiredToken",
    "HTTP status 403",
    "No credentials",
)
CHECK_CREDENTIALS = "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_START_AGAIN = "then start again with the same arguments: the job goes on from what it has saved"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # Ray paints the head of what a task raised
_NUMBER = re.compile(r"\[errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)
_NUMBERED = re.compile(r"^(?:\w+: )?\[errno \d+\] ", re.IGNORECASE)  # which OSError puts before its text again
_WORDS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "Cannot allocate memory": errno.ENOMEM,
    "failed to map segment from shared object": errno.ENOMEM,  # of a library that a process without memory loads
    "Stale file handle": errno.ESTALE,
    "Input/output error": errno.EIO,
    # SQLite's
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
}
# By the names of classes, so that no library is loaded for it; those of SQLAlchemy wrap SQLite's.
_HIDES_ITS_NUMBER = ("SafetensorError", "OperationalError", "StorageInternalError")
_RUST = re.compile(r"\(os error \d+\)")  # of the tokenizers package, which raises a bare Exception
_OS_ERRORS = ("OSError", "IOError", "FileNotFoundError", "PermissionError", "BlockingIOError")
_NAMED_FILE = re.compile(r": '([^']+)'$")
_TORCH_WRITER = re.compile(r"inline_container\.cc|PytorchStreamWriter|iostream error")
_NUMPY_WRITER = re.compile(r"^\d+ requested and (\d+) written$")


class StorageError(UserError):
    """A storage that failed, which is no fault of what was being done: whatever is tried next there fails alike."""


def as_storage_error(error: BaseException) -> OSError | None:
    """Return the OSError that an exception is or hides, with its number where one can be found; None for others."""
    if isinstance(error, OSError):
        words = own_words(error)
        number = error.errno or (errno.ENOSPC if _NUMPY_WRITER.match(words) else number_in(words))
        if number == error.errno:
            return error
        return _same(error, number)
    is_rust = type(error) is Exception and _RUST.search(str(error)) is not None
    if is_rust or any(kind.__name__ in _HIDES_ITS_NUMBER for kind in type(error).__mro__):
        number = number_in(str(error))
        return None if number is None else _same(error, number)
    if type(error).__name__ == "OutOfDiskError":  # Ray's, whose object store overflows into the temporary folder
        return OSError(errno.ENOSPC, "Ray's object store and the disk it spills to are full", tempfile.gettempdir())
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
        # torch.save says only that its file is shorter than it should be; what the file said is what it was doing then.
        hidden = error.__context__
        while hidden is not None and not isinstance(hidden, OSError):
            hidden = hidden.__context__
        return hidden
    return None


def storage_error_in(class_name: str, text: str) -> OSError | None:
    """Return what `as_storage_error` would of an exception of another process, of which only name and text are left."""
    is_rust = class_name == "Exception" and _RUST.search(text) is not None
    if class_name not in (*_HIDES_ITS_NUMBER, *_OS_ERRORS) and not is_rust:
        return None
    number = number_in(text)
    if number is None:
        return None
    named = _NAMED_FILE.search(text)
    words = _NUMBERED.sub("", text[: named.start()] if named else text)
    return OSError(number, words, *([named[1]] if named else []))


def number_in(text: str) -> int | None:
    """Return the number of an error of the operating system that a text tells by number or by its words, or None."""
    found = _NUMBER.search(text)
    if found:
        return int(found[1] or found[2])
    return next((number for words, number in _WORDS.items() if words in text), None)


def told_of_storage(error: OSError, uri: str) -> StorageError:
    """Return the error to tell of a storage that failed: the place, what was said, and the remedy.

    uri: what was being written or read; the folder for temporary files is named in its stead where that failed.
    """
    detail = own_words(error)
    uri, is_scratch = failed_place(error, uri)
    what, remedy = "the storage failed", f"put it right, {_START_AGAIN}"
    if error.errno in NO_SPACE:
        what = "no space left on the storage"
        remedy = f"free some room there{' or set TMPDIR to a larger disk' if is_scratch else ''}, {_START_AGAIN}"
    elif error.errno == errno.ENOMEM:
        what, remedy = "not enough memory to read or write", f"end what else runs on that machine, {_START_AGAIN}"
    elif error.errno == errno.EROFS:
        what, remedy = "the storage is read-only", f"mount it for writing, {_START_AGAIN}"
    elif isinstance(error, FileNotFoundError):
        what, remedy = "a file of the storage is missing", f"put it back or make it again, {_START_AGAIN}"
    elif isinstance(error, PermissionError) or any(sign in detail for sign in NO_PERMISSION):
        what = "the storage refuses access"
        remedy = "give this user leave to read and write there" if _is_local(uri) else CHECK_CREDENTIALS
        remedy = f"{remedy}, {_START_AGAIN}"
    return StorageError(what, got=f"{uri}: {detail}", remedy=remedy)


def own_words(error: BaseException) -> str:
    """Return an exception's text on one line; of another process's, without the traceback it had there."""
    lines = _COLOUR.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    return " ".join((lines[-1] if lines[0].startswith(("ray::", "Traceback")) else " ".join(lines)).split())


def is_of_the_storage(error: OSError) -> bool:
    """Whether a disk is full, read-only, broken or gone, which nothing that a user gave can bring about."""
    return error.errno in _OF_THE_STORAGE


def failed_place(error: OSError, place: str) -> tuple[str, bool]:
    """Return where an error happened, and whether that is the folder for temporary files rather than `place`.

    place: what was being written or read: a local path or a URI, which cannot be full but in its temporary copy here.
    """
    scratch = tempfile.gettempdir()
    if isinstance(error.filename, str | bytes):
        named = os.fsdecode(error.filename)
        return (scratch, True) if _is_below(named, scratch) and not _is_below(named, place) else (place, False)
    if error.errno not in NO_SPACE:
        return place, False
    if not _is_local(place):
        return scratch, True
    path = place.removeprefix("file://")
    free, device = _disk_of(path)
    scratch_free, scratch_device = _disk_of(scratch)
    # The room on one disk differs from one look to the next while others write there.
    is_scratch = scratch_device != device and scratch_free < free
    return (scratch, True) if is_scratch else (place, False)


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def _is_below(path: str, folder: str) -> bool:
    return Path(folder.removeprefix("file://")).absolute() in (Path(path).absolute(), *Path(path).absolute().parents)


def _disk_of(path: str) -> tuple[int, int]:
    """Return the room on the disk of a path that may not be there yet, in bytes, and the number of that disk."""
    for folder in (Path(path).absolute(), *Path(path).absolute().parents):
        try:
            return shutil.disk_usage(folder).free, folder.stat().st_dev
        except OSError:
            continue
    return 0, 0


def _same(error: BaseException, number: int | None) -> OSError:
    """Return an OSError that says what another exception said."""
    text = own_words(error)
    return OSError(text) if number is None else OSError(number, _NUMBERED.sub("", text))
