"""A table of embeddings as jobs/index.py writes it, made in this process."""

from pathlib import Path

import numpy as np

from mama_ray.data.index import read_index
from mama_ray.data.reading import read_payloads
from mama_ray.search.embedding_parts import IDENTITY_NAME, Summary, TableIdentity, write_part, write_summary
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place


def write_table(shards: Path, model: Path, output: Path) -> Path:
    """Encode every clip and caption of prepared shards; returns `output`."""
    towers, folder = Towers.load(str(model), num_processes=1), Place.of(output)
    records = read_index(Place.of(shards)).to_pylist()
    videos = towers.embed_videos(read_payloads(Place.of(shards), records))
    texts = sorted({caption["text"] for record in records for caption in record["captions"]})
    features = dict(zip(texts, towers.embed_texts(texts), strict=True))
    rows = [_row(features, record, video) for record, video in zip(records, videos, strict=True)]
    counts = write_part(folder / "part-000000.parquet", rows, towers.dim)
    identity = TableIdentity(
        version=1, model_hash=towers.model_hash, model=str(model), shards=str(shards), dim=towers.dim
    )
    (folder / IDENTITY_NAME).write_whole(identity.model_dump_json())
    write_summary(folder, Summary(parts={"part-000000.parquet": counts}))
    return output


def _row(features: dict[str, np.ndarray], record: dict, video) -> dict:
    is_read = isinstance(video, np.ndarray)
    return {
        "clip_id": record["clip_id"],
        "video_sha256": record["sha256"],
        "video": video if is_read else None,
        "error": None if is_read else video.reason,
        "texts_sha256": "0" * 64,
        "captions": [
            {"source": caption["source"], "index": number, "feature": features[caption["text"]]}
            for number, caption in enumerate(record["captions"])
        ],
    }
