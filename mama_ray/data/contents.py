"""What clips a job learns from, told by one hash: it stays where shards are moved and changes with whatever counts."""

import bisect
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.index import clips_per_shard, hash_ids
from mama_ray.data.index_rows import IndexRows, batches_of, tables_of

_ROWS_AT_ONCE = 1 << 16
_HASHED = ("clip_id", "sha256", "captions")
_IDS_AT_ONCE, _SAMPLED = 1_000_000, 1000


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
        for batch in batches_of(tables_of(rows, _HASHED), _ROWS_AT_ONCE):
            captions = pc.list_flatten(batch["captions"].combine_chunks())
            add(*batch["clip_id"].to_pylist())
            add(*batch["sha256"].to_pylist())
            add(*pc.list_value_length(batch["captions"]).to_pylist())
            for field in ("text", "source"):
                add(*pc.struct_field(captions, field).to_pylist())
    return digest.hexdigest()


def hash_in_order(rows: IndexRows) -> str:
    """Return a SHA-256 of the ids of clips and the hashes of their videos, in their order."""
    digest = hashlib.sha256()
    for name in ("clip_id", "sha256"):
        for batch in rows.batches([name], _ROWS_AT_ONCE):  # between which there is no newline
            digest.update("\n".join(batch[name].to_pylist()).encode())
    return digest.hexdigest()


def hash_ids_of(rows: pa.Table | IndexRows) -> str:
    """Return `hash_ids` of the clip_ids of rows. Those of an index go through files on this machine's disk, each with a
    range of ids: a million are in memory at a time.
    """
    if isinstance(rows, pa.Table):
        return hash_ids(rows["clip_id"].to_pylist())
    edges = _edges(rows)
    digest, separator = hashlib.sha256(), ""
    with tempfile.TemporaryDirectory(prefix="mama_ray-ids-") as folder:
        paths = [Path(folder, f"{number:04d}") for number in range(len(edges) + 1)]
        for table in rows.tables(["clip_id"]):
            ids = sorted(table["clip_id"].to_pylist())
            stops = [bisect.bisect_left(ids, edge) for edge in edges]
            for path, start, stop in zip(paths, [0, *stops], [*stops, len(ids)], strict=True):
                if start < stop:
                    with path.open("a") as file:
                        file.writelines(f"{name}\n" for name in ids[start:stop])
        for path in paths:
            if path.exists():
                own = sorted(path.read_text().splitlines())
                digest.update((separator + "\n".join(own)).encode())
                separator = "\n"
    return digest.hexdigest()


def _edges(rows: IndexRows) -> list[str]:
    """Return ids, in order, between which there are about so many as are held at a time."""
    rng, sample = np.random.default_rng(0), []  # drawn: what repeats in ids may repeat every so many rows
    for table in rows.tables(["clip_id"]):
        own = np.flatnonzero(rng.random(len(table)) < 1 / _SAMPLED)
        sample += table["clip_id"].take(pa.array(own)).to_pylist()
    step = max(1, _IDS_AT_ONCE // _SAMPLED)
    return sorted(set(sorted(sample)[step::step]))
