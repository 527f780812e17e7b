"""Local paths and URIs as users write them, and the filesystem that a URI names."""

from pathlib import Path

import fsspec
import pyarrow.fs as pafs

from mama_ray.errors import UserError
from mama_ray.storage.s3 import Patience, s3_filesystem


def join_uri(uri: str, *parts: str) -> str:
    """Append path components to a local path or URI."""
    return "/".join([uri.rstrip("/"), *parts])


def absolute_uri(uri: str) -> str:
    """Return a local path made absolute, any other URI as it is: workers have another working directory."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def is_local_uri(uri: str) -> bool:
    """Tell whether a path or URI is of this machine's disk."""
    return "://" not in uri or uri.startswith("file://")


def open_uri(uri: str, patience: Patience) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI that is not local, and the path inside it."""
    scheme, _, rest = uri.partition("://")
    path = rest.rstrip("/")
    if not path.strip("/") and scheme in ("s3", "s3a", "gs", "gcs"):
        raise UserError("storage URI without a bucket", got=uri, wanted=f"{scheme}://bucket/path")
    if scheme in ("s3", "s3a"):
        return s3_filesystem(patience), path
    if scheme in ("gs", "gcs"):
        return pafs.GcsFileSystem(), path
    try:
        is_web = scheme in ("http", "https")  # whose paths are whole addresses, for fsspec
        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem(scheme))), uri.rstrip("/") if is_web else path
    except (ValueError, ImportError) as error:
        raise UserError(
            "storage URI", got=uri, wanted="a local path, s3://, gs:// or a scheme fsspec can open", remedy=str(error)
        ) from error
