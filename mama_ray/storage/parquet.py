"""Reading Parquet of any storage: one that fails is tried again and told as such; damaged bytes are the file's."""

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

# Arrow has an OSError without a number for damaged bytes, too; these are words of its readers and codecs.
_DAMAGE = ("thrift", "corrupt", "Corrupt", "decompress", "end of stream", "CRC", "page", "Parquet")

_Result = TypeVar("_Result")


def read_parquet(
    place: Place,
    read: Callable[[pq.ParquetFile], _Result],
    *,
    footer: tuple[pq.FileMetaData, int] | None = None,
) -> _Result:
    """Return what `read` makes of a file, which may be called twice.

    footer: what was read at the end of the file before, and how many bytes it had then. Raises FileNotFoundError,
    pa.ArrowInvalid for damaged bytes and for a file that has another size than its footer was read of, and the
    storage's OSError when trying again did not help.
    """
    return with_retries(lambda: _read_once(place, read, footer))


def is_of_storage(error: OSError, place: Place) -> bool:
    """Whether an error in reading a file is the storage's, and not one of the file's bytes."""
    if error.errno is not None or "AWS Error" in str(error):  # which quotes the key, and that may hold any word
        return True
    return "://" in place.uri and not any(word in str(error) for word in _DAMAGE)


def _read_once(
    place: Place, read: Callable[[pq.ParquetFile], _Result], footer: tuple[pq.FileMetaData, int] | None
) -> _Result:
    metadata, num_bytes = footer or (None, None)
    try:
        with place.open_file() as file:
            if num_bytes not in (None, file.size()):
                raise pa.ArrowInvalid(f"{place} was changed: {file.size()} bytes, not {num_bytes} as before")
            with pq.ParquetFile(file, metadata=metadata) as parquet:
                return read(parquet)
    except OSError as error:
        if is_of_storage(error, place):
            raise
        raise pa.ArrowInvalid(str(error)) from error
