"""Runs that learn to answer, whole: killed and resumed bit for bit, and on clips without captions."""

import hashlib
import json
from pathlib import Path

import pytest

from mama_ray.data.questions.answers import ANSWERS_NAME
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from tests.orchestration.runs.training_runs import (
    checkpoint,
    start_training,
    wait_until,
    write_shards,
)
from tests.orchestration.training.question_clips import NUM_CLIPS, write_clips, write_table
from tests.processes import kill_tree

pytestmark = pytest.mark.ray

ANSWERING = {"kind": "question_answering", "head": {"kind": "classification", "hidden_dim": 32}}
KILLED_AFTER = 4


def learned(folder: Path, run: str) -> dict:
    """Return what a finished run learned: hashes of all its weights, its losses and its validation."""
    (*_, last) = sorted((folder / run / "checkpoints").iterdir())
    records = read_metrics(Place.of(folder / run))
    losses = ("train/loss", "train/task_loss", "meta/loss")
    return {
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(last.glob("*.safetensors"))
        },
        "answers": json.loads((last / ANSWERS_NAME).read_text()),
        "losses": [[r["step"], *(r.get(name) for name in losses)] for r in records if "train/loss" in r],
        "validation": [{k: v for k, v in r.items() if k.startswith("val/accuracy")} for r in records],
    }


@pytest.mark.slow
def test_a_run_that_answers_resumes_bit_for_bit_after_the_whole_job_was_killed(tmp_path):
    """The embedded corpus's open questions, learned weights, a head with dropout."""
    shards = write_shards(tmp_path / "corpus")
    settings = {"task": ANSWERING, "num_workers": 1, "global_batch_size": 32, "num_epochs": 0.7, "checkpoint_every": 4}
    for run in ("undisturbed", "killed"):
        process = start_training(tmp_path, shards, run, **settings)
        if run == "killed":
            wait_until(checkpoint(tmp_path, run, KILLED_AFTER).is_dir)
            kill_tree(process)
            assert not (tmp_path / run / "report").is_dir(), "it was killed too late to prove anything"
            process = start_training(tmp_path, shards, run, **settings)
        assert process.wait(timeout=400) == 0, (tmp_path / f"{run}.log").read_text()[-3000:]
    assert "resumed at step" in (tmp_path / "killed.log").read_text()
    ours, theirs = learned(tmp_path, "killed"), learned(tmp_path, "undisturbed")
    assert {"model.safetensors", "head.safetensors", "weight_net.safetensors"} <= ours["files"].keys()
    assert len(ours["losses"]) > 2 * KILLED_AFTER
    assert ours == theirs


@pytest.mark.slow
def test_answers_are_learned_of_clips_without_captions(ray_cluster, tmp_path):
    shards = write_clips(tmp_path / "shards", captioned=False, is_embedded=False)
    table = write_table(tmp_path / "questions.parquet")
    settings = {"shards": shards, "storage": str(tmp_path), "run": "alone", "log_every": 1, "data": {"num_frames": 2}}
    settings |= {"task": ANSWERING | {"contrast": False, "questions": table}, "weighting": {"kind": "uniform"}}
    settings |= {"global_batch_size": 40, "num_epochs": 0.2}
    assert "best val accuracy" in train(TrainJob.model_validate(settings))
    records = list(read_metrics(Place.of(tmp_path / "alone")))
    assert [r["train/contrastive_loss"] for r in records if "train/loss" in r] == [0.0] * 5
    assert all(r["train/loss"] == pytest.approx(r["train/task_loss"]) for r in records if "train/loss" in r)
    assert all(r["train/task_loss"] > 0 for r in records if "train/loss" in r)
    assert not any("val/t2v_R@1" in r for r in records)
    page = (tmp_path / "alone" / "report" / "index.html").read_text()
    assert "Answers on the val split" in page and page.count("data:image/jpeg") == 1  # one question of val
    environment = json.loads((tmp_path / "alone" / "environment.json").read_text())
    assert environment["data"]["num_clips"]["train"] == NUM_CLIPS
    assert environment["data"]["questions"]["num_cut"] == {"train": 0, "val": 0}
