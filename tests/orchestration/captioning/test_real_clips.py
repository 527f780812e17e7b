"""Every real clip, whole or broken, ends as one row: a caption, or the reason why there is none."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from mama_ray.data.clip import VIDEO_EXTENSIONS, Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.storage.places import Place
from tests.orchestration.captioning.captioning_runs import ROOT, read_captions

DATA = ROOT.parent / "shared" / "data"
LISTED = DATA / "clips.csv"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.promise,
    pytest.mark.skipif(not LISTED.is_file(), reason="../shared/data/clips.csv is not there"),
]


def video_files() -> list[Path]:
    files = sorted(path for path in (DATA / "clips").rglob("*") if path.is_file())
    return [path for path in files if path.suffix[1:].lower() in VIDEO_EXTENSIONS]


def write_shards(directory: Path) -> list[str]:
    """Put every file into a shard as it is: what prepare would refuse is to reach the captioning job, too."""
    directory.mkdir(parents=True)
    samples = [
        (Clip(f"clip-{n:03d}", f"clip-{n:03d}", 0.0, 1.0, (Caption("none"),), None, "train"), path.read_bytes(),
         path.suffix[1:].lower())
        for n, path in enumerate(video_files())
    ]  # fmt: skip
    name = "real-000000.tar"
    places = write_shard(directory / name, samples)
    facts = {"duration_s": 1.0, "width": 1, "height": 1, "fps": 1.0, "codec": "unknown"}
    rows = [index_row(clip, place, name, facts) for (clip, *_), place in zip(samples, places, strict=True)]
    sizes = {name: {"num_bytes": (directory / name).stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return [clip.clip_id for clip, *_ in samples]


def test_every_real_clip_gets_a_caption_or_an_error_with_its_reason(tmp_path):
    clip_ids = write_shards(tmp_path / "shards")
    assert len(clip_ids) > 20
    with LISTED.open() as stream:
        assert len(list(csv.DictReader(stream))) >= 20
    try:
        caption(CaptionJob(shards=str(tmp_path / "shards"), model="embedded", output=str(tmp_path / "table")))
    finally:
        ray.shutdown()
    rows = read_captions(tmp_path / "table")
    assert [row[0] for row in rows] == clip_ids
    for clip_id, _, text, error in rows:
        assert (text is None) != (error is None), clip_id
    assert sum(error is None for *_, error in rows) > len(rows) // 2
