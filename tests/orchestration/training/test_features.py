"""VGT trained on a table of features: with learned weights, val and checkpoints, and no pixels read."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.index import read_index
from mama_ray.data.region_features.table import (
    CHUNK_CLIPS,
    INDEX_NAME,
    SUMMARY_NAME,
    FeatureShape,
    read_chunk_index,
    write_chunk,
)
from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_pretrained
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from tests.orchestration.runs.training_runs import SETTINGS, write_shards

SHAPE = FeatureShape(num_clips=8, frames_per_clip=4, num_regions=6, frame_dim=64, region_dim=64)
VGT = {"model": {"preset": "vgt_tiny"}, "num_epochs": 1.0}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


@pytest.fixture(scope="module")
def features(shards, tmp_path_factory) -> Path:
    """A table of random features of all clips, the first of which has none."""
    folder = Place.of(tmp_path_factory.mktemp("features"))
    clips = read_index(Place.of(shards), columns=("clip_id", "sha256"))
    rows = [_row(row, **clip) for row, clip in enumerate(clips.to_pylist())]
    num_chunks = -(-len(rows) // CHUNK_CLIPS)
    for chunk in range(num_chunks):
        write_chunk(folder, chunk, rows[chunk * CHUNK_CLIPS : (chunk + 1) * CHUNK_CLIPS], SHAPE)
    index = pa.concat_tables([read_chunk_index(folder, chunk, SHAPE) for chunk in range(num_chunks)])
    pq.write_table(index, (folder / INDEX_NAME).path)
    summary = {"version": 1, "shape": SHAPE.model_dump(), "num_rows": len(rows)}
    (folder / SUMMARY_NAME).write_whole(json.dumps(summary))
    return Path(folder.path)


def _row(row: int, clip_id: str, sha256: str) -> dict:
    known = {"row": row, "clip_id": clip_id, "video_sha256": sha256, "width": 48, "height": 48}
    if row == 0:
        return known | {"error": "broken", "width": None, "height": None} | dict.fromkeys(SHAPE.arrays)
    rng = np.random.default_rng(row)
    return known | {"error": None} | {name: rng.random(shape, np.float32) for name, shape in SHAPE.arrays.items()}


def job_of(shards: Path, folder: Path, **data) -> TrainJob:
    settings = {"shards": str(shards), "storage": str(folder), "run": "vgt", "data": {"num_frames": 32} | data}
    return TrainJob.model_validate(SETTINGS | VGT | settings)


@pytest.mark.ray
def test_vgt_learns_weights_from_a_table_of_features(ray_cluster, shards, features, tmp_path):
    for path in shards.glob("*.tar"):
        content = path.read_bytes()
        path.write_bytes(bytes(len(content)))  # no pixel can be read
        path.with_suffix(".whole").write_bytes(content)
    try:
        train(job_of(shards, tmp_path, features=str(features)))
    finally:
        for path in shards.glob("*.whole"):
            path.rename(path.with_suffix(".tar"))
    metrics = list(read_metrics(Place.of(tmp_path / "vgt")))
    losses = [row["train/loss"] for row in metrics if "train/loss" in row]
    assert len(losses) == 6 and np.isfinite(losses).all()
    assert any("val/t2v_R@1" in row for row in metrics)
    checkpoint = max((tmp_path / "vgt/checkpoints").iterdir())
    model = from_pretrained(next(path.parent for path in checkpoint.rglob("config.json")))
    assert model.model_type == "vgt" and model.state_dict()["encode_vid.bbox_conv.1.num_batches_tracked"] > 0


@pytest.mark.ray
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "VGT reads features: got no data.features"),
        ({"num_frames": 16}, "not the model's: got num_frames 32, wanted num_frames 16"),
    ],
)
def test_features_that_are_not_the_models_are_one_line(ray_cluster, shards, features, tmp_path, data, words):
    fields = data | ({"features": str(features)} if data else {})
    with pytest.raises(UserError, match=words):
        train(job_of(shards, tmp_path, **fields))
