"""The bytes of clips, fetched by the byte ranges of the index."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mama_ray.data.index import read_clip_bytes
from mama_ray.data.shard import ShardError
from mama_ray.storage.places import Place

_NUM_READ_THREADS = 8  # object stores answer in tens of milliseconds; decoding waits for no single request


def read_payloads(
    folder: Place,
    records: Sequence[Mapping],
    *,
    verify_hashes: bool = True,
    retry: Callable[[Callable[[], bytes]], bytes] = lambda fetch: fetch(),
) -> list[bytes | Exception]:
    """Fetch the videos of index rows, several at a time; one that cannot be read becomes the error that says why.

    `retry` calls the fetch of one video, again where the storage fails for a moment.
    """

    def read(record: Mapping) -> bytes | Exception:
        sha256 = record["sha256"] if verify_hashes else None
        place = (record["shard"], record["offset"], record["num_bytes"])
        try:
            return retry(lambda: read_clip_bytes(folder, *place, sha256=sha256))
        except (ShardError, OSError) as error:
            return error

    with ThreadPoolExecutor(_NUM_READ_THREADS) as pool:
        return list(pool.map(read, records))
