"""One function that gives a filesystem for a URI: local paths, s3://, gs:// and whatever fsspec knows.

Everything below orchestration takes the pair (pyarrow filesystem, path) and never sees a URI. Credentials, endpoint,
region and profile come from the environment, as users of boto expect; none is accepted inside a URI.
"""

import contextlib
import errno
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import fsspec
import pyarrow.fs as pafs

from mama_ray.errors import UserError


@dataclass(frozen=True)
class Patience:
    """How long a request to S3 is waited for, and how often it is sent again.

    Attributes:
        max_attempts: of one request, with growing pauses between.
        connect_s: until the store takes the connection.
        silence_s: without a byte; Arrow's own 3 s are less than a busy store may need to begin its answer.
    """

    max_attempts: int
    connect_s: float
    silence_s: float


# Arrow's own 3 attempts give up on a burst of 503 SlowDown that boto would sit out. A first look at a storage is
# better told soon that nobody answers.
AT_WORK, FIRST_LOOK = Patience(8, 5.0, 10.0), Patience(2, 3.0, 3.0)


def filesystem_for(uri: str, *, patience: Patience = AT_WORK) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a local path or URI and the path inside it; `patience` is with S3.

    A relative local path is made absolute, because tasks on other nodes have another working directory.
    """
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme in ("", "file"):
        path = uri.removeprefix("file://")
        return pafs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    if "@" in urlsplit(uri).netloc:
        raise UserError("credentials inside a URI", got=f"{scheme}://***", remedy="put them in the environment")
    path = uri.split("://", 1)[1].rstrip("/")
    if scheme in ("s3", "s3a"):
        return _s3_filesystem(patience), path
    if scheme in ("gs", "gcs"):
        return pafs.GcsFileSystem(), path
    try:
        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem(scheme))), path
    except (ValueError, ImportError) as error:
        raise UserError(
            "storage URI", got=uri, wanted="a local path, s3://, gs:// or a scheme fsspec can open", remedy=str(error)
        ) from error


def join_uri(uri: str, *parts: str) -> str:
    """Append path components to a local path or URI."""
    return "/".join([uri.rstrip("/"), *parts])


def absolute_uri(uri: str) -> str:
    """Return a local path made absolute, any other URI as it is: workers have another working directory."""
    return str(Path(uri).expanduser().absolute()) if "://" not in uri else uri


def is_local(filesystem: pafs.FileSystem) -> bool:
    """Tell whether the filesystem is this machine's own disk."""
    return isinstance(filesystem, pafs.LocalFileSystem)


@contextmanager
def local_folder(filesystem: pafs.FileSystem, path: str) -> Iterator[Path]:
    """Give a local folder with the content of `path`: the folder itself if it is local, else a temporary download."""
    if is_local(filesystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="mama_ray-download-") as directory:
        pafs.copy_files(path, directory, source_filesystem=filesystem, destination_filesystem=pafs.LocalFileSystem())
        yield Path(directory)


def write_text(filesystem: pafs.FileSystem, path: str, text: str) -> None:
    """Write a small file whole: under a temporary name first where the storage can rename in place."""
    if not is_local(filesystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(text.encode())
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    scratch.write_text(text)
    scratch.replace(target)


def is_s3(filesystem: pafs.FileSystem) -> bool:
    """Tell whether the filesystem is Arrow's own of S3."""
    return isinstance(filesystem, pafs.S3FileSystem)


def make_folder(filesystem: pafs.FileSystem, path: str) -> None:
    """Make a folder and those above it, where the storage knows folders: S3 has none, and asks a request for each."""
    if not is_s3(filesystem):
        filesystem.create_dir(path, recursive=True)


def _s3_filesystem(patience: Patience) -> pafs.S3FileSystem:
    place = s3_place()
    options = {}
    if place.endpoint:
        parts = urlsplit(place.endpoint)
        options = {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
    return pafs.S3FileSystem(
        region=place.region,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=patience.max_attempts),
        connect_timeout=patience.connect_s,
        request_timeout=patience.silence_s,
        allow_delayed_open=True,  # a small file is then one PutObject, not the three requests of a multipart upload
        **options,
    )


@dataclass(frozen=True)
class _S3Place:
    """Where S3 is, None being Amazon's default."""

    endpoint: str | None
    region: str | None


def s3_place() -> _S3Place:
    """Find endpoint and region as boto does: in the environment, then in the profile that AWS_PROFILE names."""
    profile = _profile() if os.environ.get("AWS_PROFILE") else {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return _S3Place(endpoint or profile.get("endpoint_url"), region or profile.get("region"))


def _profile() -> dict[str, str]:
    """Read the profile's settings. Its credentials are found by Arrow itself, which takes no endpoint from there."""
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    try:
        return botocore.session.Session().get_scoped_config()
    except ProfileNotFound as error:
        raise UserError(
            "no such AWS profile",
            got=os.environ["AWS_PROFILE"],
            wanted="a profile of ~/.aws/config or ~/.aws/credentials",
        ) from error


_START_AGAIN = "put it right and start again with the same arguments; finished shards are kept"


# EFBIG is what a file size limit or an old filesystem gives.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn what the storage refuses into one UserError."""
    try:
        yield
    except OSError as error:
        detail = " ".join(str(error).split())[:500]
        what = "no space left on the storage" if error.errno in _NO_SPACE else "the storage failed"
        raise UserError(what, got=f"{uri}: {detail}", remedy=_START_AGAIN) from error


def read_json(filesystem: pafs.FileSystem, path: str) -> Any:
    """Read a small JSON file; None when it is missing or no JSON."""
    try:
        with filesystem.open_input_stream(path) as stream:
            return json.loads(stream.read())
    except (FileNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def open_atomic(filesystem: pafs.FileSystem, path: str) -> Iterator[BinaryIO]:
    """Yield a stream to a temporary name beside `path`; it gets its real name only when the block ends without an
    error.
    """
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with filesystem.open_output_stream(temporary) as stream:
            yield stream
        filesystem.move(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            filesystem.delete_file(temporary)
        raise
