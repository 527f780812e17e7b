"""A TimeSformer that starts from a CLIP folder: trained with learned weights and stochastic depth, and evaluated."""

from pathlib import Path

import numpy as np
import pytest

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.timesformer.model import Timesformer
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from tests.models.hf_encoder.hf_models import build_sized
from tests.orchestration.runs.training_runs import SETTINGS, write_shards

CONTEXT = 16


def write_clip(folder: Path) -> Path:
    tokenizer = Tokenizer.train(["a red green blue circle square moves left right"] * 3, 514, CONTEXT)
    build_sized("clip", tokenizer.vocab_size, CONTEXT, eos=tokenizer.eot_id).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.mark.ray
@pytest.mark.slow
def test_clip_folder_becomes_a_timesformer_whose_time_is_trained_and_is_evaluated(ray_cluster, tmp_path):
    shards, clip = write_shards(tmp_path / "shards"), write_clip(tmp_path / "clip")
    settings = {"shards": str(shards), "storage": str(tmp_path), "run": "tsf", "num_epochs": 1.0}
    train(TrainJob.model_validate(SETTINGS | settings | {"model": {"pretrained": f"timesformer:{clip}"}}))
    losses = [row["train/loss"] for row in read_metrics(Place.of(tmp_path / "tsf")) if "train/loss" in row]
    assert len(losses) == 6 and np.isfinite(losses).all()
    checkpoint = max((tmp_path / "tsf/checkpoints").iterdir())
    model = from_pretrained(next(path.parent for path in checkpoint.rglob("config.json")))
    assert isinstance(model, Timesformer) and model.config.dim == 256
    assert all(block.timeattn.proj.weight.any() for block in model.visual.blocks)
    found = evaluate(EvaluateJob(checkpoint=str(tmp_path / "tsf"), benchmark="own"))
    assert 1 <= found.file.results[0].metrics["t2v_median_rank"] <= 16
    start = evaluate(EvaluateJob(checkpoint=f"joint:{clip}", benchmark="own", shards=str(shards)))
    assert start.file.results[0].protocol.num_videos == 16
