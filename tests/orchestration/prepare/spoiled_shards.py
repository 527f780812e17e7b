"""A small corpus in two shards in which some videos are bad: cut off, no video at all, or not what the index says."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import list_clips
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.storage.places import Place

CORPUS = CorpusConfig(num_train=48, num_meta=0, num_val=0, num_test=22)
NUM_CLIPS = sum(CORPUS.num_clips.values())
TRUNCATED, GARBAGE, CHANGED = 5, 36, 50  # rows of the index; the first two have the hash of their bad bytes
BAD = (TRUNCATED, GARBAGE, CHANGED)


def write_spoiled_shards(directory: Path) -> Path:
    """Write the corpus with three bad clips."""

    def spoil(row: int, video: bytes) -> bytes:
        return {TRUNCATED: video[: len(video) // 2], GARBAGE: b"\x00garbage" * 90}.get(row, video)

    places = write_shards(directory, spoil)
    shard, offset = places[CHANGED]
    with open(directory / shard, "r+b") as stream:
        stream.seek(offset + 100)
        stream.write(b"other bytes than the index says")
    return directory


def write_shards(
    directory: Path, spoil: Callable[[int, bytes], bytes], count: int = NUM_CLIPS
) -> list[tuple[str, int]]:
    """Write the first clips of the corpus, each video through `spoil`; return where each lies."""
    directory.mkdir(parents=True)
    facts = {"duration_s": CORPUS.duration_s, "width": 48, "height": 48, "fps": float(CORPUS.fps), "codec": "h264"}
    clips = [generate_clip(CORPUS, split, number) for split, number in list_clips(CORPUS)[:count]]
    samples = [(one.clip, spoil(row, one.video), "mp4") for row, one in enumerate(clips)]
    rows, sizes, found = [], {}, []
    for number, part in enumerate((samples[: count // 2], samples[count // 2 :])):
        name = f"clips-{number:06d}.tar"
        places = write_shard(directory / name, part)
        rows += [index_row(clip, place, name, facts) for (clip, *_), place in zip(part, places, strict=True)]
        found += [(name, place.offset) for place in places]
        sizes[name] = {"num_bytes": (directory / name).stat().st_size, "num_clips": len(part)}
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return found
