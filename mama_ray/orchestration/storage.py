"""One function that gives a filesystem for a URI: local paths, s3://, gs:// and whatever fsspec knows.

Everything below orchestration takes the pair (pyarrow filesystem, path) and never sees a URI. Credentials, endpoint,
region and profile come from the environment, as users of boto expect; none is accepted inside a URI.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import pyarrow.fs as pafs

from mama_ray.errors import UserError

# Arrow's own default of 3 attempts gives up on a burst of 503 SlowDown that boto would sit out. A first look at a
# storage is better told soon that nobody answers.
_MAX_ATTEMPTS, _PROBE_ATTEMPTS = 8, 3


def filesystem_for(uri: str, *, max_attempts: int = _MAX_ATTEMPTS) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a local path or URI and the path inside it; `max_attempts` of a request to S3.

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
        return _s3_filesystem(max_attempts), path
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


def ensure_writable(uri: str) -> None:
    """Fail now, with one clear error, if nothing can be written under `uri`."""
    filesystem, path = filesystem_for(uri, max_attempts=_PROBE_ATTEMPTS)
    probe = f"{path}/.mama_ray_write_test_{os.getpid()}"
    try:
        filesystem.create_dir(path, recursive=True)
        with filesystem.open_output_stream(probe) as stream:
            stream.write(b"ok")
        filesystem.delete_file(probe)
    except OSError as error:
        raise UserError(
            "storage is not writable", got=uri, wanted="a folder or bucket this user may write to", remedy=str(error)
        ) from error


def _s3_filesystem(max_attempts: int) -> pafs.S3FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options = {}
    if endpoint:
        parts = urlsplit(endpoint)
        options = {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
    retries = pafs.AwsStandardS3RetryStrategy(max_attempts=max_attempts)
    return pafs.S3FileSystem(region=region, retry_strategy=retries, **options)
