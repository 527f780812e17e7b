"""A video where a decoder can open it: on a disk of this node, or fetched to one, whole and as it was looked at."""

import errno
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from typing import IO

import pyarrow.fs as pafs

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.storage.failures import own_words
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

_COPY_BYTES = 8 << 20
_ANSWERS_WITHIN_S = 30
_GONE = (404, 410)
_ASK_AGAIN = (408, 425, 429)  # of those below 500


def info_of(place: Place) -> pafs.FileInfo:
    """Return what lies at a place now. Raises UserError where a web server cannot be reached or refuses it."""
    there = with_retries(place.info)
    is_web = place.uri.lower().startswith(("http://", "https://"))
    # The file system takes whatever a web server says, or that it says nothing, for that it has no such file.
    if there.type == pafs.FileType.NotFound and is_web and _is_there(place.uri):
        return with_retries(place.info)
    return there


def local_path(
    uri: str, num_bytes: int, modified_ns: int | None, decode: DecodeConfig, *, sha256: str | None = None
) -> str:
    """Return a local path of a video: its own, or that of a copy, of which this process keeps the latest.

    sha256: of the video, where it is known; a copy with another one is of another video.

    Raises UserError where the file is another one than when the job began, or gone, OSError where the storage fails,
    and DecodeError where it is larger than `decode` allows.
    """
    place = Place.of(uri)
    _require_same(place, num_bytes, modified_ns)
    if num_bytes > decode.max_bytes:
        raise DecodeError("the file is too large", got=f"{num_bytes} bytes", limit=f"{decode.max_bytes} bytes")
    if place.is_local:
        return place.path
    return _COPY.path_of(place, num_bytes, modified_ns, sha256)


def require_still_there(uri: str, num_bytes: int, modified_ns: int | None) -> None:
    """Raise UserError where a video that could not be decoded is gone or another one by now: that is no fact about it.

    What is fetched is decoded from a copy, which nobody takes away.
    """
    place = Place.of(uri)
    if place.is_local:
        _require_same(place, num_bytes, modified_ns)


def _require_same(place: Place, num_bytes: int, modified_ns: int | None) -> None:
    there = info_of(place)
    if not there.is_file:
        raise UserError("a video is gone", got=place.uri, wanted="the file that the job began with")
    if (there.size, there.mtime_ns) != (num_bytes, modified_ns):
        raise _changed(place.uri)


def _changed(uri: str) -> UserError:
    remedy = "start the job again with another --output"
    return UserError("a video was changed while it was narrated", got=uri, remedy=remedy)


class _LatestCopy:
    """The remote video that this process read last, in a file without a name: it goes when the process does, however
    that ends.
    """

    def __init__(self) -> None:
        self._identity: tuple | None = None
        self._sha256 = ""
        self._file: IO[bytes] | None = None

    def path_of(self, place: Place, num_bytes: int, modified_ns: int | None, sha256: str | None) -> str:
        identity = (place.uri, num_bytes, modified_ns)
        is_same = self._identity == identity and sha256 in (None, self._sha256)
        if not is_same:
            self._take(place, num_bytes)
            if sha256 not in (None, self._sha256):  # once more: a single byte may have been lost on the way
                self._take(place, num_bytes)
            if sha256 not in (None, self._sha256):
                raise _changed(place.uri)
            self._identity = identity
        assert self._file is not None
        # The child that decodes opens it anew, under this process's own number.
        return f"/proc/{os.getpid()}/fd/{self._file.fileno()}"

    def _take(self, place: Place, num_bytes: int) -> None:
        if self._file is not None:
            self._file.close()
        self._identity = None
        file = self._file = tempfile.TemporaryFile(prefix="mama_ray-narrate-")  # noqa: SIM115 - kept
        self._sha256 = with_retries(lambda: _fetch(place, num_bytes, file))


_COPY = _LatestCopy()


def _fetch(place: Place, num_bytes: int, file: IO[bytes]) -> str:
    """Write a video into a file and return its hash. Raises OSError where the storage fails, or gives another number
    of bytes.
    """
    file.seek(0)
    file.truncate()
    digest = hashlib.sha256()
    try:
        with place.open_stream() as stream:
            while file.tell() <= num_bytes and (piece := stream.read(_COPY_BYTES)):
                digest.update(piece)
                file.write(piece)
    except (OSError, UserError):
        raise
    except Exception as error:  # the clients that fsspec uses have errors of their own: those of aiohttp are no OSError
        raise OSError(errno.EIO, f"{type(error).__name__}: {own_words(error)}") from error
    file.flush()
    if file.tell() != num_bytes:
        raise OSError(errno.EIO, f"{file.tell()} bytes came of {num_bytes}")
    return digest.hexdigest()


def _is_there(address: str) -> bool:
    """Tell whether a web server has a file. Raises UserError where it does not say."""
    try:
        return with_retries(lambda: _ask(address))
    except OSError as error:  # also URLError, which tells why
        why = getattr(error, "reason", error)
        raise UserError("the server of a video cannot be reached", got=f"{address} ({why})") from error


def _ask(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_ANSWERS_WITHIN_S).close()
    except urllib.error.HTTPError as error:
        if error.code in _GONE:
            return False
        if error.code < 500 and error.code not in _ASK_AGAIN:
            raise UserError("the server of a video refuses it", got=f"{address} (status {error.code})") from error
        raise  # an OSError
    return True
