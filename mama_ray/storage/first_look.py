"""Whether a storage is there and may be used: told within seconds, in one line, before anything starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from mama_ray.errors import UserError
from mama_ray.storage.failures import (
    CHECK_CREDENTIALS,
    NO_PERMISSION,
    as_storage_error,
    is_of_the_storage,
    told_of_storage,
)
from mama_ray.storage.places import Place
from mama_ray.storage.s3 import FIRST_LOOK, s3_endpoint

# Words of Arrow and of the AWS SDK.
_NO_BUCKET = ("NO_SUCH_BUCKET", "The specified bucket does not exist")


# Where Ray unpacks the working directory of a submitted job, and takes it away again when the job has ended.
_JOB_COPY = "/runtime_resources/working_dir_files/"
_NAME_WHOLE = "give a path from / on that all nodes share, or a URI such as s3://BUCKET/NAME"


def ensure_writable(uri: str) -> None:
    """Fail now, within seconds and with one clear error, if nothing can be written under `uri`, or nothing would last.

    A relative path of a submitted job lies in the copy of the working directory that goes with the job.
    """
    if _JOB_COPY in uri:
        raise UserError(
            "a relative path of a submitted job would be lost with it", got=_in_job(uri), remedy=_NAME_WHOLE
        )
    folder = Place.of(uri, patience=FIRST_LOOK)
    probe = folder / f".mama_ray_write_test_{os.getpid()}"
    with _refusals(uri, "storage is not writable", "a folder or bucket this user may write to"):
        if folder.is_s3:
            folder.info()  # told sooner than by a write that nobody answers
        folder.make_folder()
        probe.write_whole(b"ok")
        with suppress(FileNotFoundError):  # a delete whose answer was lost was tried again
            probe.delete_file()


def ensure_readable(*uris: str | None) -> None:
    """Fail now, within seconds and with one clear error, if the store of a URI cannot be read.

    What is in it is not looked at: local paths, where nothing can be slow, and None pass, but for a path that a
    submitted job did not bring along.
    """
    for uri in uris:
        if uri is not None and _JOB_COPY in uri and not Path(uri).exists():
            raise UserError(
                "not in the working directory that was submitted, where git's ignored files are left out",
                got=_in_job(uri),
                remedy=_NAME_WHOLE,
            )
        if uri is None or "://" not in uri:
            continue
        place = Place.of(uri, patience=FIRST_LOOK)
        with _refusals(uri, "storage cannot be read", "a folder or bucket this user may read"):
            if not place.exists() and place.is_s3:
                bucket = place.path.split("/")[0]  # a name in a bucket that is not there is not found either
                if place.filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
                    raise FileNotFoundError(f"NO_SUCH_BUCKET {bucket}")


def _in_job(path: str) -> str:
    """Return the path as the user wrote it: below the package's own folder."""
    return path.split(_JOB_COPY, 1)[1].partition("/")[2] or path


@contextmanager
def _refusals(uri: str, what: str, wanted: str) -> Iterator[None]:
    """Turn what a store says when it refuses into one UserError that names the store and the remedy."""
    try:
        yield
    except (OSError, NotImplementedError) as error:
        failure = as_storage_error(error)
        if failure is not None and is_of_the_storage(failure):
            raise told_of_storage(failure, uri) from error
        text = " ".join(str(error).split()) or type(error).__name__
        if not uri.startswith(("s3://", "s3a://")):
            raise UserError(what, got=uri, wanted=wanted, remedy=text) from error
        where = s3_endpoint()
        host = urlsplit(where.endpoint).netloc if where.endpoint else f"Amazon S3, region {where.region or 'not set'}"
        reason, remedy = text, None
        if any(sign in text for sign in _NO_BUCKET):
            reason, remedy = f"no bucket {uri.split('://', 1)[1].split('/')[0]}", "make the bucket, or check its name"
        elif "NETWORK_CONNECTION" in text:
            reason, remedy = (
                f"nobody answers: {text.rsplit('; Details: ', 1)[-1]}",
                "check AWS_ENDPOINT_URL, the network",
            )
        elif any(sign in text for sign in NO_PERMISSION):
            reason, remedy = f"no permission: {text}", CHECK_CREDENTIALS
        raise UserError(what, got=f"{uri} at {host} ({reason})", wanted=wanted, remedy=remedy) from error
