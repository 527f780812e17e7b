"""The bytes of clips, fetched by the byte ranges of the index: neighbours in a shard by one request.

Everything that reads clips reads them here: training, evaluation, captioning, the narrator and the reports. So here it
is decided what is a fact about a clip, which may be written down, and what is a trouble of the storage, which ends the
job once patience is at an end: an outage, credentials that have expired, a shard that is gone.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from mama_ray.data.index import check_clip_bytes
from mama_ray.data.shard import ShardError
from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

# Neighbours in a shard are a kilobyte apart; reading over a gap costs less than another request to an object store.
MAX_GAP_BYTES = 64 << 10
MAX_REQUEST_BYTES = 8 << 20
HELD_BYTES = 512 << 20  # of videos that a task holds at once: some hundred clips, or one that is larger
_NUM_READ_THREADS = 8  # object stores answer in tens of milliseconds; decoding waits for no single request

_Retry = Callable[[Callable[[], bytes]], bytes]


def read_payloads(
    folder: Place, records: Sequence[Mapping], *, retry: _Retry = with_retries
) -> list[bytes | ShardError]:
    """Fetch the videos of index rows, several requests at a time; one that is not what the index says is a ShardError.

    That is a fact about the clip: its shard is truncated, or its bytes are others, read twice. A storage that fails for
    a moment is asked again by `retry`, which calls a request; one that fails for good is a UserError that names the
    shard.
    """
    payloads: list[bytes | ShardError] = [b""] * len(records)
    has_failed = threading.Event()  # the others need not wait for the same storage once more

    def fetch(run: Sequence[int]) -> None:
        if has_failed.is_set():
            return
        wanted = [records[position] for position in run]
        try:
            with storage_errors((folder / wanted[0]["shard"]).uri):
                found = _read_clips(shards, wanted, retry)
                bad = [number for number, payload in enumerate(found) if isinstance(payload, ShardError)]
                if bad:  # bytes may have been lost or changed on their way
                    with _OpenShards(folder) as opened_anew:
                        for number in bad:
                            (found[number],) = _read_clips(opened_anew, [wanted[number]], retry)
        except UserError:
            has_failed.set()
            raise
        for position, payload in zip(run, found, strict=True):
            payloads[position] = payload

    with _OpenShards(folder) as shards, ThreadPoolExecutor(_NUM_READ_THREADS) as pool:
        list(pool.map(fetch, merge_neighbours(records)))
    return payloads


def iter_payloads(
    folder: Place, records: Sequence[Mapping], *, max_bytes: int = HELD_BYTES
) -> Iterator[bytes | ShardError]:
    """Yield what `read_payloads` returns, of which no more than `max_bytes`, or one video, are in memory at a time."""
    for run in bounded_runs(records, max_bytes):
        yield from read_payloads(folder, run)


def bounded_runs(records: Sequence[Mapping], max_bytes: int = HELD_BYTES) -> Iterator[Sequence[Mapping]]:
    """Cut index rows into as few runs as have no more bytes than that; a video that is larger is a run of its own."""
    start = num_bytes = 0
    for stop, record in enumerate(records):
        if start < stop and num_bytes + record["num_bytes"] > max_bytes:
            yield records[start:stop]
            start, num_bytes = stop, 0
        num_bytes += record["num_bytes"]
    if start < len(records):
        yield records[start:]


def read_clip_bytes(folder: Place, shard: str, offset: int, num_bytes: int, *, sha256: str | None = None) -> bytes:
    """Fetch one clip's video bytes. Raises ShardError on a short read or another hash, UserError where the storage
    fails.
    """
    record = {"shard": shard, "offset": offset, "num_bytes": num_bytes, "sha256": sha256}
    (payload,) = read_payloads(folder, [record])
    if isinstance(payload, ShardError):
        raise payload
    return payload


def merge_neighbours(records: Sequence[Mapping]) -> Iterator[list[int]]:
    """Yield the positions of records that one request fetches, in the order of (shard, offset)."""

    def stop_of(record: Mapping) -> int:
        return record["offset"] + record["num_bytes"]

    run: list[int] = []
    start = stop = 0
    for position in sorted(range(len(records)), key=lambda one: (records[one]["shard"], records[one]["offset"])):
        record = records[position]
        joins = (
            run
            and records[run[0]]["shard"] == record["shard"]
            and record["offset"] - stop <= MAX_GAP_BYTES
            and stop_of(record) - start <= MAX_REQUEST_BYTES
        )
        if not joins:
            if run:
                yield run
            run, start, stop = [], record["offset"], stop_of(record)
        run.append(position)
        stop = max(stop, stop_of(record))
    if run:
        yield run


@dataclass
class _OpenShards:
    """The shards of one call, each opened once: that alone is a request to an object store."""

    folder: Place

    def __post_init__(self) -> None:
        self._files: dict[str, tuple[pa.NativeFile, int]] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._lock, self._stack = threading.Lock(), ExitStack()

    def __enter__(self) -> "_OpenShards":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def read(self, shard: str, start: int, stop: int) -> bytes:
        """Read a range, cut where the shard ends; a shard that failed is opened anew the next time."""
        file, size = self._opened(shard)
        try:
            # Past the end of a truncated shard Arrow raises what looks like a failing storage.
            return file.read_at(stop - start, start) if start < size else b""
        except OSError:
            self._files.pop(shard, None)
            raise

    def _opened(self, shard: str) -> tuple[pa.NativeFile, int]:
        """Open a shard once, beside others; its size is asked for before anyone reads: a Python file seeks for it."""
        with self._lock:
            opening = self._opening.setdefault(shard, threading.Lock())
        with opening:
            if shard not in self._files:
                file = self._stack.enter_context((self.folder / shard).open_file())
                self._files[shard] = file, file.size()
            return self._files[shard]


def _read_clips(shards: _OpenShards, run: Sequence[Mapping], retry: _Retry) -> list[bytes | ShardError]:
    """Read neighbours in a shard by one request."""
    start, stop = run[0]["offset"], max(record["offset"] + record["num_bytes"] for record in run)
    data = retry(lambda: shards.read(run[0]["shard"], start, stop))
    return [_cut(data, start, record) for record in run]


def _cut(data: bytes, start: int, record: Mapping) -> bytes | ShardError:
    """Return a clip's own bytes of a run that begins at `start`, or what is wrong with them."""
    first = record["offset"] - start
    video = data[first : first + record["num_bytes"]]
    try:
        check_clip_bytes(video, record["shard"], record["offset"], record["num_bytes"], record["sha256"])
    except ShardError as error:
        return error
    return video
