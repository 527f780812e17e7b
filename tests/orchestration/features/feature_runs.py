"""Shards of small videos, tiny models in folders, and what is in a table of features."""

import hashlib
import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.storage.places import Place
from tests.features.tiny_models import save_detector, save_resnet

FACTS = {"duration_s": 1.0, "width": 48, "height": 32, "fps": 12.0, "codec": "h264"}


def encode(seed: int, *, num_frames: int = 12) -> bytes:
    """A video of moving noise."""
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 32, 48, 3), dtype=np.uint8)
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=12)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(video.encode())
    return stream.getvalue()


def write_feature_shards(folder: Path, videos: dict[str, bytes]) -> Path:
    """Write videos by name as clips of the training split."""
    folder.mkdir(parents=True)
    samples = [
        (Clip(name, f"video-of-{name}", 0.0, 1.0, (Caption("words"),), None, "train"), video, "mp4")
        for name, video in videos.items()
    ]
    name = "clips-000000.tar"
    places = write_shard(folder / name, samples)
    rows = [index_row(clip, place, name, FACTS) for (clip, *_), place in zip(samples, places, strict=True)]
    sizes = {name: {"num_bytes": (folder / name).stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(folder), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return folder


def write_models(folder: Path) -> dict[str, str]:
    """Write a tiny ResNet and a tiny detector; returns the job's fields that name them."""
    save_resnet(folder / "resnet")
    save_detector(folder / "detr")
    (folder / "detr/preprocessor_config.json").write_text('{"size": {"shortest_edge": 32, "longest_edge": 64}}')
    return {"frame_model": str(folder / "resnet"), "detector": str(folder / "detr")}


def files_of(output: Path) -> list[Path]:
    """Return the files of features that were committed."""
    return sorted(output.glob("features-*.parquet"))


def read_table(output: Path) -> list[tuple]:
    """Return row, clip, video, error and a hash of all features of every row, in the files' order."""
    rows = []
    for path in files_of(output):
        for row in pq.read_table(path).to_pylist():
            features = repr([row[name] for name in ("width", "height", "frames", "regions", "boxes")])
            digest = hashlib.sha256(features.encode()).hexdigest()
            rows.append((row["row"], row["clip_id"], row["video_sha256"], row["error"], digest))
    return rows
