"""VGT trained on a table of features: with learned weights, val and checkpoints, evaluated, and no pixel is read."""

from pathlib import Path

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_pretrained
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from tests.data.region_features.random_table import write_random_features
from tests.orchestration.runs.training_runs import SETTINGS, write_shards

VGT = {"model": {"preset": "vgt_tiny"}, "num_epochs": 1.0}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


@pytest.fixture(scope="module")
def features(shards, tmp_path_factory) -> Path:
    return write_random_features(tmp_path_factory.mktemp("features"), shards)


def job_of(shards: Path, folder: Path, **data) -> TrainJob:
    settings = {"shards": str(shards), "storage": str(folder), "run": "vgt", "data": {"num_frames": 32} | data}
    return TrainJob.model_validate(SETTINGS | VGT | settings)


@pytest.mark.ray
@pytest.mark.slow
def test_vgt_learns_weights_and_is_measured_from_a_table_of_features(ray_cluster, shards, features, tmp_path):
    for path in shards.glob("*.tar"):
        content = path.read_bytes()
        path.write_bytes(bytes(len(content)))  # no pixel can be read
        path.with_suffix(".whole").write_bytes(content)
    try:
        train(job_of(shards, tmp_path, features=str(features)))
        found = evaluate(EvaluateJob(checkpoint=str(tmp_path / "vgt"), benchmark="own"))
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

    result = found.file.results[0]
    assert (result.protocol.num_missing, result.protocol.num_videos) == (0, 16)
    assert result.protocol.sampling.startswith("features of the table")
    assert 1 <= result.metrics["t2v_median_rank"] <= 16


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
