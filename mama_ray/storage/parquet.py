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


def read_parquet(place: Place, read: Callable[[pq.ParquetFile], _Result]) -> _Result:
    """Return what `read` makes of a file, which may be called twice.

    Raises FileNotFoundError, pa.ArrowInvalid for damaged bytes, and the storage's OSError when trying again did not
    help.
    """
    return with_retries(lambda: _read_once(place, read))


def is_of_storage(error: OSError, place: Place) -> bool:
    """Whether an error in reading a file is the storage's, and not one of the file's bytes."""
    if error.errno is not None or "AWS Error" in str(error):  # which quotes the key, and that may hold any word
        return True
    return "://" in place.uri and not any(word in str(error) for word in _DAMAGE)


def _read_once(place: Place, read: Callable[[pq.ParquetFile], _Result]) -> _Result:
    try:
        with place.open_file() as file, pq.ParquetFile(file) as parquet:
            return read(parquet)
    except OSError as error:
        if is_of_storage(error, place):
            raise
        raise pa.ArrowInvalid(str(error)) from error
