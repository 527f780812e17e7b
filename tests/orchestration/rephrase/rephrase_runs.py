"""Shards of one video with captions of all kinds, a T5 of random weights, and what is in a finished table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from mama_ray.captioning.table import CAPTION_SCHEMA, read_caption_files
from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.storage.places import Place
from tests.captioning.rephrasing.tiny_t5 import pairs_of, write_t5

FACTS = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 8.0, "codec": "h264"}
SMALL = ["--decoding.num_beams", "4", "--decoding.num_groups", "4", "--decoding.max_length", "24"]


def write_captioned_shards(folder: Path, captions: Mapping[str, Sequence[Caption]], *, split: str = "train") -> Path:
    """Write clips by name with their captions; nobody who rephrases looks at their bytes."""
    folder.mkdir(parents=True)
    name = "clips-000000.tar"
    samples = [
        (Clip(clip_id, f"video-of-{clip_id}", 0.0, 1.0, tuple(own), None, split), f"bytes of {clip_id}".encode(), "mp4")
        for clip_id, own in captions.items()
    ]
    places = write_shard(folder / name, samples)
    rows = [index_row(clip, place, name, FACTS) for (clip, *_), place in zip(samples, places, strict=True)]
    sizes = {name: {"num_bytes": (folder / name).stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(folder), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return folder


def grammar_captions(count: int, *, per_clip: int = 1) -> dict[str, list[Caption]]:
    """Return clips with human captions of the embedded grammar, in the first person."""
    texts = [source for source, _ in pairs_of(CorpusConfig(texts="first_person", num_train=2000), count * per_clip)]
    return {
        f"clip-{number:05d}": [Caption(text) for text in texts[number * per_clip : (number + 1) * per_clip]]
        for number in range(count)
    }


def write_random_t5(folder: Path) -> Path:
    """Write a T5 whose answers are no sentences but differ from their captions."""
    captions = [caption.text for own in grammar_captions(200).values() for caption in own]
    return write_t5(folder, captions, spread=3.0, ends=2.0)


def rows_of(output: Path) -> list[dict]:
    """Return all rows of a finished table."""
    tables = list(read_caption_files(Place.of(output)))
    assert all(table.schema.equals(CAPTION_SCHEMA) for table in tables)
    return pa.concat_tables(tables).to_pylist()
