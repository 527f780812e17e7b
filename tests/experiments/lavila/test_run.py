"""LaViLa as one job: every step is taken, found again, and the dual encoders differ in their texts alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mama_ray.config import load_config, with_overrides
from mama_ray.errors import UserError
from mama_ray.experiments.lavila.job import LavilaJob
from mama_ray.experiments.lavila.run import SHARES, run_lavila
from tests.orchestration.captioning.captioning_runs import read_captions

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "corpus.num_train": 96, "corpus.human_rate": 0.5, "corpus.num_val": 16, "corpus.num_test": 16,
    "corpus.num_meta": 16,
    "train.num_epochs": 1, "train.num_workers": 1, "train.global_batch_size": 16, "narrator.num_epochs": 1,
    "narrator.num_workers": 1, "narrator.global_batch_size": 16, "narrator.num_val_clips": 8, "decoding.num_beams": 4,
    "decoding.num_groups": 2, "decoding.num_kept": 1, "decoding.max_length": 32, "caption.sampling.max_tokens": 16,
}  # fmt: skip


def start(storage: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "jobs/lavila.py"), "--storage", str(storage)]
    for name, value in SMALL.items():
        command += [f"--{name}", str(value)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


def trained_steps(run: Path) -> int:
    return max(int(folder.name.rpartition("_")[2]) for folder in (run / "checkpoints").iterdir())


@pytest.mark.ray
@pytest.mark.slow
def test_every_step_is_taken_once_and_reported(tmp_path):
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith(tuple(SHARES))]
    assert [row[:20].strip() for row in rows] == list(SHARES)
    assert rows[0].split()[-1] == "+0.0"
    narrated = read_captions(tmp_path / "lavila/narrated")
    assert len(narrated) == 2 * SMALL["corpus.num_train"]
    assert json.loads((tmp_path / "lavila/rephrased/captions.json").read_text())["outcomes"]
    configs = {name: yaml.safe_load((tmp_path / f"lavila-{name}/config.yaml").read_text()) for name in ("human", "all")}
    different = {key for key in configs["all"] if configs["all"][key] != configs["human"].get(key)}
    assert different == {"run", "data", "num_epochs"}
    assert {trained_steps(tmp_path / f"lavila-{name}") for name in ("human", "human-narrated", "all")} == {6}
    report = (tmp_path / "lavila/report/index.html").read_text()
    assert "human + rephrased" in report
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoints/*/*.safetensors")}
    again = start(tmp_path)
    assert again.returncode == 0, again.stderr[-4000:]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoints/*/*.safetensors")} == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"caption": {"split": "test"}}, "caption.split test"),
        ({"train": {"data": {"shares": {"human": 1.0}}}}, "train.data.shares"),
        ({"train": {"data": {"captions": {"human": 1.0}}}}, "train.data.captions"),
    ],
)
def test_what_the_steps_differ_in_is_not_asked_for(changes, named):
    with pytest.raises(ValueError, match=named):
        LavilaJob.model_validate(changes)


@pytest.mark.parametrize("job", [LavilaJob(), load_config(LavilaJob, ROOT / "configs/lavila/ego4d.yaml")])
def test_paraphrases_may_be_sampled_whatever_beams_a_recipe_has(job):
    changed = with_overrides(job, {"decoding.method": "sampling", "decoding.temperature": 0.8})
    assert changed.decoding.num_candidates == changed.decoding.num_samples


@pytest.mark.parametrize("name", ["narrator.data.max_caption_tokens", "caption.sampling.max_tokens"])
def test_captions_that_the_narrator_has_no_place_for_are_refused_before_anything_is_trained(tmp_path, name):
    job = load_config(LavilaJob, ROOT / "configs/lavila/ego4d.yaml")
    job = with_overrides(job, {"storage": str(tmp_path / "runs"), name: 77})
    with pytest.raises(UserError, match=f"got {name} 77, wanted at most 76"):
        run_lavila(job)
    assert not list(tmp_path.iterdir())
