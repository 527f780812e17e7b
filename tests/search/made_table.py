"""Tables of embeddings of random features, for the tests of search."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mama_ray.search.embedding_parts import (
    IDENTITY_NAME,
    SUMMARY_NAME,
    Summary,
    TableIdentity,
    read_summary,
    write_part,
    write_summary,
)
from mama_ray.storage.places import Place


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def make_rows(num_clips: int, dim: int, *, seed: int = 0) -> list[dict]:
    """Return rows with up to three captions each; some have no video, some no captions, some are equal to others."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_clips):
        video = unit(rng.normal(size=dim)).astype(np.float16)
        captions = [
            {"source": source, "index": index, "feature": unit(rng.normal(size=dim)).astype(np.float16)}
            for source, index in [("human", 0), ("human", 1), ("generated", 0)][: int(rng.integers(0, 4))]
        ]
        if number % 10 == 9:  # equal to another clip's
            video, captions = rows[-5]["video"], rows[-5]["captions"]
        is_broken = number % 13 == 12
        rows.append(
            {
                "clip_id": f"clip {rng.integers(1 << 30):010d}",  # in an order of its own
                "video_sha256": f"{number:064x}",
                "video": None if is_broken else video,
                "error": "it is broken" if is_broken else None,
                "texts_sha256": "0" * 64,
                "captions": captions,
            }
        )
    return rows


def write_table(folder: Place, rows: Sequence[dict], dim: int, *, part_clips: int = 100) -> None:
    """Write a finished table."""
    identity = TableIdentity(version=1, model_hash="a" * 64, model="a model", shards="some shards", dim=dim)
    (folder / IDENTITY_NAME).write_whole(identity.model_dump_json())
    parts = {}
    for start in range(0, len(rows), part_clips):
        name = f"embeddings-{start // part_clips:06d}.parquet"
        parts[name] = write_part(folder / name, rows[start : start + part_clips], dim)
    write_summary(folder, Summary(parts=parts))


def as_of_version_1(folder: Path, *, num_errors: int = 0) -> Path:
    """Make a finished table one that version 1 wrote, with all parts in one object; returns that file."""
    parts = {name: counts.model_dump() for name, counts in read_summary(Place.of(folder)).items()}
    (folder / SUMMARY_NAME).unlink()
    earlier = folder / "embeddings.json"
    earlier.write_text(json.dumps({"version": 1, "num_errors": num_errors, "parts": parts}, indent=1))
    return earlier
