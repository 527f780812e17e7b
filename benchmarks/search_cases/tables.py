"""Tables of random embeddings of any size, and how times of queries are summed up."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.search.embedding_parts import (
    IDENTITY_NAME,
    TABLE_VERSION,
    PartCounts,
    Summary,
    TableIdentity,
    embedding_schema,
    write_summary,
)
from mama_ray.storage.places import Place

_PART_CLIPS = 256  # as of jobs/index.py
_CROWDS = 500
_REPEATED = ["error", "texts_sha256"]  # a dictionary of random features would take longer than all else


def write_random_table(
    folder: Place, num_clips: int, dim: int, num_captions: int, *, part_clips: int = _PART_CLIPS
) -> None:
    """Write a finished table of random directions around some crowds, one part in memory at a time."""
    rng = np.random.default_rng(0)
    crowds = _unit(rng.standard_normal((_CROWDS, dim), np.float32))
    identity = TableIdentity(version=TABLE_VERSION, model_hash="0" * 64, model="none", shards="none", dim=dim)
    (folder / IDENTITY_NAME).write_whole(identity.model_dump_json())
    parts = {}
    for start in range(0, num_clips, part_clips):
        size = min(part_clips, num_clips - start)
        centers = crowds[rng.integers(0, _CROWDS, size)]
        made = [
            _unit(centers + rng.standard_normal((size, dim), np.float32) / dim**0.5) for _ in range(1 + num_captions)
        ]
        name = f"part-{start // part_clips:06d}.parquet"
        part = _part_table(start, made[0], np.stack(made[1:], axis=1) if num_captions else np.zeros((size, 0, dim)))
        written = partial(pq.write_table, part, compression="zstd", use_dictionary=_REPEATED, write_statistics=False)
        (folder / name).write_whole(written)
        parts[name] = PartCounts(num_clips=size, num_captions=size * num_captions)
    write_summary(folder, Summary(parts=parts))


def _part_table(start: int, video: np.ndarray, captions: np.ndarray) -> pa.Table:
    """Return a part of the clips from number `start` on: video (n, dim), captions (n, captions of a clip, dim)."""
    (size, dim), num_captions = video.shape, captions.shape[1]
    schema = embedding_schema(dim)
    listed = schema.field("captions").type
    structs = pa.StructArray.from_arrays(
        [
            pa.array(["human"] * (size * num_captions), pa.string()),
            pa.array(np.tile(np.arange(num_captions, dtype=np.int32), size)),
            _features(captions.reshape(-1, dim)),
        ],
        fields=list(listed.value_type),
    )
    offsets = pa.array(np.arange(size + 1, dtype=np.int32) * num_captions)
    columns = [
        pa.array([f"video-{start + i:09d}_000000000_000005000" for i in range(size)]),
        pa.array([f"{start + i:064x}" for i in range(size)]),
        _features(video),
        pa.nulls(size, pa.string()),
        pa.array(["0" * 64] * size),
        pa.ListArray.from_arrays(offsets, structs, type=listed),
    ]
    return pa.table(columns, schema=schema)


def percentiles(taken: Sequence[float]) -> dict[str, float]:
    """Return median and 95th percentile."""
    return {"median": round(float(np.median(taken)), 2), "p95": round(float(np.percentile(taken, 95)), 2)}


def _features(values: np.ndarray) -> pa.FixedSizeListArray:
    flat = pa.array(values.astype(np.float16).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.float16(), values.shape[1]))


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)
