"""Recipes of first-person video: each is whole and says its batch as it is; fine-tuning resumes bit for bit."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mama_ray.config import load_config, parse_config
from mama_ray.models.pretrained import from_preset
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.labels import build_class_head
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from tests.orchestration.runs.training_runs import (
    ROOT,
    SETTINGS,
    checkpoint,
    start_training,
    wait_until,
    write_shards,
)
from tests.processes import kill_tree

RECIPES = [*(ROOT / "configs/train/egocentric").glob("*.yaml"), *(ROOT / "configs/train").glob("lavila_*.yaml")]
# Of the whole recipe only what makes it small: the model, the corpus, the batch and the machine.
SMALL: dict[str, Any] = SETTINGS | {"num_epochs": 1.3, "num_workers": 1, "use_gpu": False}
SMALL |= {"weighting": {"kind": "learned"}}
KILLED_AFTER = 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_says_its_batch_as_it_is(path):
    job, text = load_config(TrainJob, path), path.read_text()
    (said,) = re.findall(r"Batch ([\d,]+)\s+(?:# )?= (\d+) GPUs x (\d+)\s+(?:# )?clips x (\d+)", text)
    batch, gpus, clips, parts = (int(number.replace(",", "")) for number in said)
    assert (job.global_batch_size, job.num_workers, job.num_micro_batches) == (batch, gpus, parts)
    assert batch == gpus * clips * parts
    assert job.reads_classes == ("ek100" in path.stem or path.stem == "egtea")


def test_the_recipe_of_three_heads_trains_one_as_its_comment_says():
    recipe = str(ROOT / "configs/train/egocentric/ek100_cls.yaml")
    job = parse_config(TrainJob, [recipe, "--task.class_head.kinds", "action"])
    assert job.task.class_head.kinds == ("action",)
    model = from_preset("tiny", {"vocab_size": 600, "context_length": 16})
    head = build_class_head(job.task.class_head, {"verb": 90, "noun": 290, "action": 1352}, model)
    assert head.sizes == {"action": 3806}


def small(name: str) -> dict[str, Any]:
    """A recipe's settings, made small."""
    settings = yaml.safe_load((ROOT / f"configs/train/egocentric/{name}.yaml").read_text())
    settings["data"] |= {"num_frames": 2}
    return settings | SMALL


def learned(folder: Path, run: str) -> dict[str, Any]:
    """What a finished run learned: hashes of all its weights, its losses and its validation."""
    (*_, last) = sorted((folder / run / "checkpoints").iterdir())
    records = read_metrics(Place.of(folder / run))
    return {
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(last.glob("*.safetensors"))
        },
        "losses": [(r["step"], r["train/loss"], r["meta/loss"]) for r in records if "train/loss" in r],
        "validation": [{k: v for k, v in r.items() if k.startswith("val/")} for r in records],
    }


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ek100_mir_multi_similarity", "ek100_mir_max_margin", "ek100_mir_adaptive", "ek100_cls"]
)
def test_a_fine_tuning_from_its_recipe_resumes_bit_for_bit_after_the_whole_job_was_killed(tmp_path, name):
    """On the embedded corpus, whose verbs are motions and whose nouns are shapes, with learned weights."""
    shards, settings = write_shards(tmp_path / "corpus"), small(name)
    if name == "ek100_cls":
        settings["task"]["class_head"]["num_classes"] = {"noun": 9}
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
    assert len(ours["losses"]) > KILLED_AFTER and all(loss > 0 for _, loss, _ in ours["losses"])
    assert ("head.safetensors" in ours["files"]) == (name == "ek100_cls")
    assert ours == theirs
