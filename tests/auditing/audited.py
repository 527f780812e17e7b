"""A small audit made by hand: features in a plane, so that every cosine is known."""

import numpy as np
import pyarrow as pa

from mama_ray.auditing.judging import AuditedClips
from mama_ray.auditing.sums import RecordMeans
from mama_ray.data.index import MEMORY_SCHEMA

CAPTIONS = MEMORY_SCHEMA.field("captions").type


def on_circle(degrees: list[float]) -> np.ndarray:
    """Return unit vectors."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def audited(
    captions: dict[str, list[tuple[str, str, float]]],
    videos: list[float],
    weights: list[float],
    unreadable: tuple[int, ...] = (),
) -> AuditedClips:
    """Make clips with captions (text, source, angle of its feature), angles of the videos' and recorded weights.

    A weight of NaN is that of a caption that was not recorded.
    """
    own = [[{"text": text, "source": source} for text, source, _ in texts] for texts in captions.values()]
    clips = pa.table(
        {
            "clip_id": pa.array(captions, pa.large_string()),
            "sha256": pa.array([f"sha of {name}" for name in captions], pa.large_string()),
            "topic": pa.array(["cats"] * len(captions), pa.large_string()),
            "captions": pa.array(own, CAPTIONS),
        }
    )
    offsets = np.cumsum([0, *(len(texts) for texts in captions.values())])
    values = np.array(weights, float)
    means = RecordMeans(
        np.where(np.isfinite(values), 2, 0),
        {"weight": values, "loss": 3 - values, "cosine": values / 10},
        [0, 1],
        {"weight": np.full((2, len(captions)), 1.0), "loss": np.full((2, len(captions)), 2.0)},
    )
    is_bad = np.isin(np.arange(len(captions)), unreadable)
    texts = on_circle([angle for own_texts in captions.values() for *_, angle in own_texts])
    return AuditedClips(clips, offsets, means, on_circle(videos), texts, is_bad)
