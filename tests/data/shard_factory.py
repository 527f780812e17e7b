"""Small shards and indexes for tests; the 'videos' are bytes without meaning."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.storage.places import Place

FACTS = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 4.0, "codec": "h264"}


def fake_clip(number: int, split: str = "train") -> tuple[Clip, bytes, str]:
    """A clip with 200 to 3,000 bytes that depend on its number."""
    rng = np.random.default_rng(number)
    video = rng.bytes(int(rng.integers(200, 3000)))
    return Clip(f"clip-{number:04d}", f"v{number}", 0.0, 1.0, (Caption(f"text {number}"),), split=split), video, "mp4"


def write_dataset(directory: Path, sizes: list[int], splits: tuple[str, ...] = ("train",)) -> pa.Table:
    """Write shards with the given numbers of clips and their index; splits alternate."""
    directory.mkdir(parents=True, exist_ok=True)
    tables, shards, number = [], {}, 0
    for shard_number, size in enumerate(sizes):
        name = f"clips-{shard_number:06d}.tar"
        samples = [fake_clip(number + i, splits[(number + i) % len(splits)]) for i in range(size)]
        number += size
        locations = write_shard(directory / name, samples)
        rows = [index_row(clip, place, name, FACTS) for (clip, _, _), place in zip(samples, locations, strict=True)]
        tables.append(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
        shards[name] = {"num_bytes": (directory / name).stat().st_size, "num_clips": size}
    write_index(Place.of(directory), tables, shards)
    return pa.concat_tables(tables)


def tar_bytes(members: list[tuple[str, bytes]]) -> bytes:
    """A tar with the given members, in order, by the standard library."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
