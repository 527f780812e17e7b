"""A table of random features of the clips of some shards."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.index import read_index
from mama_ray.data.region_features.table import (
    CHUNK_CLIPS,
    INDEX_NAME,
    SUMMARY_NAME,
    FeatureShape,
    read_chunk_index,
    write_chunk,
)
from mama_ray.storage.places import Place

SHAPE = FeatureShape(num_clips=8, frames_per_clip=4, num_regions=6, frame_dim=64, region_dim=64)


def write_random_features(folder: Path, shards: Path) -> Path:
    """Write features of all clips, the first of which has none."""
    place = Place.of(folder)
    clips = read_index(Place.of(shards), columns=("clip_id", "sha256"))
    rows = [_row(row, **clip) for row, clip in enumerate(clips.to_pylist())]
    num_chunks = -(-len(rows) // CHUNK_CLIPS)
    for chunk in range(num_chunks):
        write_chunk(place, chunk, rows[chunk * CHUNK_CLIPS : (chunk + 1) * CHUNK_CLIPS], SHAPE)
    index = pa.concat_tables([read_chunk_index(place, chunk, SHAPE) for chunk in range(num_chunks)])
    pq.write_table(index, (place / INDEX_NAME).path)
    summary = {"version": 1, "shape": SHAPE.model_dump(), "num_rows": len(rows)}
    (place / SUMMARY_NAME).write_whole(json.dumps(summary))
    return folder


def _row(row: int, clip_id: str, sha256: str) -> dict:
    known = {"row": row, "clip_id": clip_id, "video_sha256": sha256, "width": 48, "height": 48}
    if row == 0:
        return known | {"error": "broken", "width": None, "height": None} | dict.fromkeys(SHAPE.arrays)
    rng = np.random.default_rng(row)
    return known | {"error": None} | {name: rng.random(shape, np.float32) for name, shape in SHAPE.arrays.items()}
