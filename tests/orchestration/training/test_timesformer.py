"""A TimeSformer that starts from a CLIP folder: trained with learned weights and stochastic depth, and evaluated."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.models.pretrained import from_pretrained, save_pretrained
from mama_ray.models.timesformer.model import Timesformer
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from mama_ray.orchestration.training.inputs import look_at_inputs
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.orchestration.training.worker import _build_state, build_model
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.checkpoint import save_state
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
    begin = {"pretrained": f"timesformer:{clip}", "drop_path": 0.1}
    train(TrainJob.model_validate(SETTINGS | settings | {"model": begin}))
    losses = [row["train/loss"] for row in read_metrics(Place.of(tmp_path / "tsf")) if "train/loss" in row]
    assert len(losses) == 6 and np.isfinite(losses).all()
    checkpoint = max((tmp_path / "tsf/checkpoints").iterdir())
    model = from_pretrained(next(path.parent for path in checkpoint.rglob("config.json")))
    assert isinstance(model, Timesformer) and (model.config.dim, model.config.drop_path) == (256, 0.1)
    assert all(block.timeattn.proj.weight.any() for block in model.visual.blocks)
    found = evaluate(EvaluateJob(checkpoint=str(tmp_path / "tsf"), benchmark="own"))
    assert 1 <= found.file.results[0].metrics["t2v_median_rank"] <= 16
    start = evaluate(EvaluateJob(checkpoint=f"joint:{clip}", benchmark="own", shards=str(shards)))
    assert start.file.results[0].protocol.num_videos == 16


def test_a_fine_tuning_on_more_frames_learns_a_temporal_embedding_for_each(tmp_path):
    summary = {"vocab_size": 40, "context_length": 10}
    start = build_model(TrainJob.model_validate({"model": {"preset": "tsf_tiny"}}), summary).eval()
    assert isinstance(start, Timesformer) and start.config.num_frames == 4
    torch.nn.init.normal_(start.visual.temporal_embed)
    save_pretrained(start, tmp_path)
    jobs = [{"model": {"pretrained": str(tmp_path)}, "data": {"num_frames": number}} for number in (2, 4, 16)]
    models = [build_model(TrainJob.model_validate(job), summary).eval() for job in jobs]
    assert [model.config.num_frames for model in models] == [4, 4, 16]
    side = start.config.image_size
    frames = torch.randint(0, 256, (2, 16, side, side, 3), dtype=torch.uint8)
    assert isinstance(models[2], Timesformer)
    embedding = models[2].visual.temporal_embed
    assert embedding.shape[1] == 16 and embedding.requires_grad
    torch.testing.assert_close(models[2].encode_video(frames), start.encode_video(frames))
    (gradient,) = torch.autograd.grad(models[2].encode_video(frames).sum(), embedding)
    assert torch.linalg.matrix_rank(gradient[0]) > 4  # steps of 4 rows that are interpolated have no more
    longer = TrainJob.model_validate(jobs[2])
    save_state(_build_state(longer, start, torch.device("cpu"), 1), tmp_path, selection=None)
    assert build_model(longer, summary, tmp_path).config.num_frames == 4  # begun by an earlier version


def test_stochastic_depth_is_set_by_the_job_and_refused_where_there_is_none(tmp_path):
    summary = {"vocab_size": 40, "context_length": 10}
    job = TrainJob.model_validate({"model": {"preset": "tsf_tiny", "drop_path": 0.2}})
    model = build_model(job, summary)
    assert model.config.drop_path == 0.2
    save_pretrained(model, tmp_path)
    changed = TrainJob.model_validate({"model": {"pretrained": str(tmp_path), "drop_path": 0.3}})
    kept = TrainJob.model_validate({"model": {"pretrained": str(tmp_path)}})
    assert [build_model(one, summary).config.drop_path for one in (changed, kept)] == [0.3, 0.2]
    with pytest.raises(UserError, match="preset tiny takes no model.drop_path: got 0.1, wanted a TimeSformer"):
        look_at_inputs(TrainJob.model_validate({"model": {"preset": "tiny", "drop_path": 0.1}}))
