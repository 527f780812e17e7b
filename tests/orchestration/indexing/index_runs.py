"""Shards of small videos with captions, in any number, and what is in an index of them."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video

FACTS = {"duration_s": 1.0, "width": 64, "height": 48, "fps": 12.0, "codec": "h264"}


def clip_of(number: int, *, is_broken: bool = False) -> tuple[Clip, bytes, str]:
    """Return a clip of its own name, video and captions."""
    name = f"clip-{number:03d}"
    captions = tuple(Caption(f"a {color} thing {number} moves") for color in ["red", "green"][: number % 3])
    video = b"no video" * 50 if is_broken else make_video(num_frames=4 + number % 7, width=64, height=48)
    return Clip(name, f"video-of-{name}", 0.0, 1.0, captions, "things", "train"), video, "mp4"


def write_shards(folder: Path, shards: list[list[tuple[Clip, bytes, str]]]) -> Path:
    """Write shards and their index; what lay there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, sizes = [], {}
    for number, samples in enumerate(shards):
        name = f"clips-{number:06d}.tar"
        places = write_shard(folder / name, samples)
        rows += [index_row(clip, place, name, FACTS) for (clip, *_), place in zip(samples, places, strict=True)]
        sizes[name] = {"num_bytes": (folder / name).stat().st_size, "num_clips": len(samples)}
    write_index(Place.of(folder), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return folder


def parts_of(output: Path) -> dict[str, int]:
    """Return when each part was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(output.glob("*.parquet"))}


def rows_of(output: Path) -> dict[str, str]:
    """Return a hash of all that the index has of each clip, in the order of its files."""
    rows = [row for path in sorted(output.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    found = {row["clip_id"]: hashlib.sha256(repr(row).encode()).hexdigest() for row in rows}
    assert len(found) == len(rows), "a clip is there twice"
    return found
