"""What clips a job learns from, told by one hash: it stays where shards are moved and changes with whatever counts."""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.index import clips_per_shard, hash_ids
from mama_ray.data.index_rows import IndexRows

_ROWS_AT_ONCE = 1 << 16
_HASHED = ("clip_id", "sha256", "captions")
_IDS_AT_ONCE, _SAMPLED = 3_000_000, 1000


def hash_clips(splits: Mapping[str, pa.Table | IndexRows]) -> str:
    """Return a SHA-256 of the clips of some splits: their order, where shards end, videos, captions and sources.

    splits: rows of the index by split, with clip_id, shard, sha256 and captions. The names of shards and where they lie
    are no part of it. Memory is that of 65,536 rows.
    """
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update("\0".join(map(str, parts)).encode() + b"\1")

    for split, rows in splits.items():
        counts = clips_per_shard(rows) if isinstance(rows, pa.Table) else rows.clips_per_shard().tolist()
        add(split, *counts)
        for batch in _batches(rows):
            captions = pc.list_flatten(batch["captions"].combine_chunks())
            add(*batch["clip_id"].to_pylist())
            add(*batch["sha256"].to_pylist())
            add(*pc.list_value_length(batch["captions"]).to_pylist())
            for field in ("text", "source"):
                add(*pc.struct_field(captions, field).to_pylist())
    return digest.hexdigest()


def _batches(rows: pa.Table | IndexRows) -> Iterator[pa.Table]:
    if isinstance(rows, IndexRows):
        yield from rows.batches(_HASHED, _ROWS_AT_ONCE)
        return
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows.select(_HASHED).slice(start, _ROWS_AT_ONCE)


def hash_ids_of(rows: pa.Table | IndexRows) -> str:
    """Return `hash_ids` of the clip_ids of rows: of those of an index some millions are in memory at a time, and they
    are gone through once for each range of ids.
    """
    if isinstance(rows, pa.Table):
        return hash_ids(rows["clip_id"].to_pylist())
    sample, count = [pa.array([], pa.large_string())], 0
    for table in rows.tables(["clip_id"]):
        sample += table["clip_id"].take(pa.array(np.arange(-count % _SAMPLED, len(table), _SAMPLED))).chunks
        count += len(table)
    sorted_sample = pc.sort_indices(known := pa.concat_arrays(sample))
    step = max(1, _IDS_AT_ONCE // _SAMPLED)
    edges = pc.unique(known.take(sorted_sample)[step::step])
    digest, separator = hashlib.sha256(), ""
    for low, high in zip([None, *edges], [*edges, None], strict=True):
        own = [pa.array([], pa.large_string())]
        for table in rows.tables(["clip_id"]):
            own += _between(table["clip_id"], low, high).chunks
        ids = pa.concat_arrays(own)
        order = pc.sort_indices(ids)
        for start in range(0, len(order), _ROWS_AT_ONCE):
            some = ids.take(order.slice(start, _ROWS_AT_ONCE)).to_pylist()
            digest.update((separator + "\n".join(some)).encode())
            separator = "\n"
    return digest.hexdigest()


def _between(ids: pa.ChunkedArray, low: pa.Scalar | None, high: pa.Scalar | None) -> pa.ChunkedArray:
    if low is not None:
        ids = ids.filter(pc.greater_equal(ids, low))
    return ids if high is None else ids.filter(pc.less(ids, high))
