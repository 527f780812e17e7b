"""Where S3 is and how patient we are with it; endpoint, region and profile come from the environment, as with boto."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from mama_ray.errors import UserError
from mama_ray.masking import holds_credentials, mask_text


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


def s3_filesystem(patience: Patience) -> pafs.S3FileSystem:
    """Return Arrow's filesystem of the S3 that the environment names; `patience` is with each request."""
    where = s3_endpoint()
    options = {}
    if where.endpoint:
        if holds_credentials(where.endpoint):
            raise UserError(
                "credentials inside the endpoint of S3",
                got=mask_text(where.endpoint),
                wanted="scheme, host and port",
                remedy="put them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        parts = urlsplit(where.endpoint)
        options = {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
    return pafs.S3FileSystem(
        region=where.region,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=patience.max_attempts),
        connect_timeout=patience.connect_s,
        request_timeout=patience.silence_s,
        allow_delayed_open=True,  # a small file is then one PutObject, not the three requests of a multipart upload
        **options,
    )


@dataclass(frozen=True)
class S3Endpoint:
    """Where S3 is, None being Amazon's default."""

    endpoint: str | None
    region: str | None


def s3_endpoint() -> S3Endpoint:
    """Find endpoint and region as boto does: in the environment, then in the profile that AWS_PROFILE names."""
    profile = _profile() if os.environ.get("AWS_PROFILE") else {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return S3Endpoint(endpoint or profile.get("endpoint_url"), region or profile.get("region"))


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


def s3_client(patience: Patience) -> Any:
    """Return botocore's client of the same S3, for what Arrow's filesystem cannot ask.

    It is the conditions of a PUT, and copies by parts.
    """
    import botocore.session
    from botocore.config import Config

    where = s3_endpoint()
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=where.endpoint,
        region_name=where.region or "us-east-1",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": patience.max_attempts},
            connect_timeout=patience.connect_s,
            read_timeout=patience.silence_s,
            s3={"addressing_style": "path"} if where.endpoint else None,  # as Arrow does
            # Not every store knows the checksums that Amazon's own clients have begun to send.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def s3_errors() -> Iterator[None]:
    """Turn what that client raises into the OSError that Arrow's filesystem would raise."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        raise (PermissionError if status == 403 else OSError)(str(error)) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error
