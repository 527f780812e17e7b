"""Another name for a large object: S3 copies no more than 5 GiB in one request, but larger ones by parts."""

from contextlib import suppress

from mama_ray.storage.s3 import AT_WORK, s3_client, s3_errors

MAX_COPY_BYTES = 5 << 30
"""Of an object that S3 copies in one request."""

# A part is copied well within the silence that is borne of a store. S3 takes parts from 5 MiB on, and so many of them.
_PART_BYTES, _MAX_PARTS = 256 << 20, 10_000


def move_by_parts(source: str, target: str, num_bytes: int) -> None:
    """Give an object of S3 of `num_bytes` another name; both are bucket/key.

    The target appears whole. Where the copy fails, its parts are deleted and OSError is raised; the source stays.
    """
    part_bytes = max(_PART_BYTES, -(-num_bytes // _MAX_PARTS))
    origin, name = _name(source), _name(target)
    with s3_errors():
        client = s3_client(AT_WORK)
        upload = name | {"UploadId": client.create_multipart_upload(**name)["UploadId"]}
        try:
            parts = []
            for number, start in enumerate(range(0, num_bytes, part_bytes), 1):
                bounds = f"bytes={start}-{min(start + part_bytes, num_bytes) - 1}"
                answer = client.upload_part_copy(**upload, PartNumber=number, CopySource=origin, CopySourceRange=bounds)
                parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
            client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                client.abort_multipart_upload(**upload)
            raise
        client.delete_object(**origin)


def _name(path: str) -> dict[str, str]:
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}
