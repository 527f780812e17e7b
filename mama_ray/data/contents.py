"""What clips a job learns from, told by one hash: it stays where shards are moved and changes with whatever counts."""

import hashlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.index import clips_per_shard

_ROWS_AT_ONCE = 1 << 16


def hash_clips(splits: Mapping[str, pa.Table]) -> str:
    """Return a SHA-256 of the clips of some splits: their order, where shards end, videos, captions and sources.

    splits: rows of the index by split, with clip_id, shard, sha256 and captions. The names of shards and where they lie
    are no part of it.
    """
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update("\0".join(map(str, parts)).encode() + b"\1")

    for split, table in splits.items():
        add(split, *clips_per_shard(table))
        columns = table.select(["clip_id", "sha256", "captions"]).combine_chunks()
        for batch in columns.to_batches(max_chunksize=_ROWS_AT_ONCE):
            captions = pc.list_flatten(batch.column("captions"))
            add(*batch.column("clip_id").to_pylist())
            add(*batch.column("sha256").to_pylist())
            add(*pc.list_value_length(batch.column("captions")).to_pylist())
            for field in ("text", "source"):
                add(*pc.struct_field(captions, field).to_pylist())
    return digest.hexdigest()
