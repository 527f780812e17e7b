"""An audit of a small corpus made by hand: features and weights of random numbers, written as the job writes them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.auditing.judging import AuditedClips, judge_clips
from mama_ray.auditing.sums import RecordMeans
from mama_ray.auditing.table import AUDIT_NAME
from mama_ray.data.index import read_index
from mama_ray.storage.places import Place


def audit_of(shards: Path, *, share: float = 0.25) -> pa.Table:
    """Return the table of an audit: the later a clip stands in the index, the lower its weight; hostile
    ones have the lowest."""
    clips = read_index(Place.of(shards), columns=("clip_id", "sha256", "topic", "captions"))
    count = len(clips)
    offsets = np.arange(count + 1)  # one caption each
    rng = np.random.default_rng(0)
    videos, texts = (rng.normal(size=(count, 16)) for _ in range(2))
    videos, texts = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (videos, texts))
    weights = np.linspace(1.6, 0.2, count)
    weights[[clip_id.startswith("hostile") for clip_id in clips["clip_id"].to_pylist()]] = 0.1
    by_caption = {"weight": weights, "loss": 4 - 2 * weights, "cosine": weights / 4}
    by_epoch = {name: np.stack([by_caption[name]] * 2) for name in ("weight", "loss")}
    means = RecordMeans(np.full(count, 2), by_caption, [0, 1], by_epoch)
    found = AuditedClips(clips, offsets, means, videos, texts, np.zeros(count, bool))
    return judge_clips(found, by="weight", share=share, num_compared=1000)


def write_audit(shards: Path, folder: Path) -> Path:
    """Write it; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(audit_of(shards), folder / AUDIT_NAME)
    return folder
