"""The narrator's job whole: it learns, validates, resumes bit for bit, and leaves a folder that can be served."""

import hashlib
import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import torch
import yaml

from mama_ray.captioning.engines.captioner import inspect_captioner
from mama_ray.captioning.narrator.folder import load_narrator, read_narrator_input
from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.entry import find_user_error
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.run import run
from mama_ray.orchestration.runs.checkpoint_store import publish_folder
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.manifest import list_checkpoints, verify_manifest
from tests.orchestration.runs.training_runs import ROOT, write_shards

pytestmark = pytest.mark.ray

NUM_STEPS = 6
SETTINGS = {
    "global_batch_size": 16,
    "num_epochs": 1.0,
    "num_workers": 1,
    "log_every": 1,
    "checkpoint_every": 2,
    "num_checkpoints_to_keep": 3,
    "num_val_clips": 8,
    "model_dtype": "float32",
    "data": {"max_caption_tokens": 16},
    "optim": {"warmup_share": 0.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


def job_on(shards: Path, folder: Path, /, **overrides) -> NarratorJob:
    base = NarratorJob.model_validate(SETTINGS)
    return with_overrides(base, {"shards": str(shards), "storage": str(folder)} | overrides)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, shards, folder) -> Path:
    line = run(job_on(shards, folder, run="undisturbed"))
    assert line.endswith(str(folder / "undisturbed" / "model"))
    return folder / "undisturbed"


def losses(run_folder: Path) -> list[tuple[int, float]]:
    records = read_metrics(Place.of(run_folder))
    return [(record["step"], record["train/caption_loss"]) for record in records if "train/caption_loss" in record]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_learns_validates_and_leaves_a_folder_that_can_be_served(undisturbed):
    found = losses(undisturbed)
    assert [step for step, _ in found] == list(range(1, NUM_STEPS + 1))
    assert found[-1][1] < found[0][1] - 0.5
    records = read_metrics(Place.of(undisturbed))
    validated = [record for record in records if "val/caption_loss" in record]
    assert [record["step"] for record in validated] == [2, 4, 6]
    assert all(0 <= record[f"val/{name}_right"] <= 100 for record in validated for name in ("shape", "motion"))
    assert {"config.yaml", "environment.json", "checkpoints", "model"} <= {path.name for path in undisturbed.iterdir()}
    page = (undisturbed / "report" / "index.html").read_text()
    assert page.count("data:image/jpeg") > 1, "captions of val clips are shown"
    assert [record["step"] for record in records if "val/CIDEr-D" in record] == [2, 4, 6]
    scored = json.loads((undisturbed / "report" / "captions.json").read_text())
    assert scored["subset"]["num_clips"] == 8 and "8 of the 16 clips of val, evenly spread" in page
    model = undisturbed / "model"
    assert not {"optimizer.pt", "train_state.json", "manifest.json"} & {path.name for path in model.iterdir()}
    narrator_input = read_narrator_input(model)
    assert inspect_captioner(model, narrator_input.prompt).architecture == "LlavaForConditionalGeneration"


def test_every_checkpoint_is_whole_and_is_itself_a_model_folder(undisturbed):
    refs = list_checkpoints(Place.of(undisturbed))
    assert [ref.step for ref in refs] == [2, 4, 6]
    for ref in refs:
        assert verify_manifest(ref.place) is None
        assert json.loads((ref.place / "train_state.json").read_text())["step"] == ref.step
        load_narrator(ref.place.path)


@pytest.mark.slow
@pytest.mark.promise
def test_a_run_that_lost_its_last_checkpoints_ends_bit_for_bit_as_if_undisturbed(undisturbed, shards, folder):
    resumed = folder / "resumed"
    shutil.copytree(undisturbed, resumed)
    shutil.rmtree(resumed / "model")
    for step in (4, 6):
        shutil.rmtree(resumed / "checkpoints" / f"step_{step:08d}")
    run(job_on(shards, folder, run="resumed"))
    assert losses(resumed) == losses(undisturbed)
    for name in ("checkpoints/step_00000006/model.safetensors", "model/model.safetensors"):
        assert digest(resumed / name) == digest(undisturbed / name)


@pytest.mark.slow
def test_two_workers_in_parts_learn_what_one_does(undisturbed, shards, folder):
    run(job_on(shards, folder, run="two", num_workers=2, num_micro_batches=2))
    for (step, ours), (_, theirs) in zip(losses(folder / "two"), losses(undisturbed), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4), step


@pytest.mark.slow
def test_a_finished_narrator_can_be_tuned_further_and_only_where_asked(undisturbed, shards, folder):
    source = undisturbed / "model"
    changes = {"model.pretrained": str(source), "model.trains": "projector", "model.gradient_checkpointing": True}
    run(job_on(shards, folder, run="tuned", num_epochs=0.3, **changes))
    before, after = load_narrator(source), load_narrator(folder / "tuned" / "model")
    pairs = zip(before.model.named_parameters(), after.model.parameters(), strict=True)
    moved = {name for (name, old), new in pairs if not torch.equal(old, new)}
    assert moved
    assert all("multi_modal_projector" in name for name in moved)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"shards": "missing-folder"}, "missing-folder"),
        ({"global_batch_size": 128}, "fewer training clips than one batch"),
        ({"data.captions": {"asr": 1.0}}, "asr"),
        ({"model.pretrained": "no/such-model"}, "no/such-model"),
        ({"storage": "/proc/no-such-place"}, "not writable"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_worker_starts(ray_cluster, shards, tmp_path, overrides, named):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what matters is the user's error inside
        run(job_on(shards, tmp_path, **overrides))
    error = find_user_error(caught.value)
    assert isinstance(error, UserError), repr(caught.value)
    assert named in str(error)


def test_a_run_that_exists_is_not_continued_with_another_config(undisturbed, shards, folder):
    with pytest.raises(UserError, match="optim"):
        run(job_on(shards, folder, run="undisturbed", **{"optim.lr": 0.1}))


def test_a_published_folder_holds_nothing_of_the_old_one_and_is_not_whole_before_its_end(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    for name in ("config.json", "old-weights"):
        (target / name).write_text("old")
    files = [tmp_path / "config.json", tmp_path / "weights"]
    files[0].write_text("new")
    with pytest.raises(FileNotFoundError):  # its weights are not there
        publish_folder(Place.of(target), files, last="config.json")
    assert not (target / "config.json").exists()
    files[1].write_text("new")
    publish_folder(Place.of(target), files, last="config.json")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"config.json": "new", "weights": "new"}


@pytest.mark.slow
def test_a_narrator_is_taught_on_s3(tmp_path, s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    request = urllib.request.Request(f"{s3_server['AWS_ENDPOINT_URL']}/bucket", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    bucket = Place.of("s3://bucket")
    shards = write_shards(tmp_path / "shards")
    pafs.copy_files(str(shards), "bucket/shards", destination_filesystem=bucket.filesystem)
    config = tmp_path / "cloud.yaml"
    places = {"shards": "s3://bucket/shards", "storage": "s3://bucket/runs", "run": "cloud"}
    config.write_text(yaml.safe_dump(SETTINGS | places | {"num_epochs": 0.5}))
    for _ in range(2):  # the second start finds the run done, and its model is made anew
        command = [sys.executable, "jobs/narrator.py", str(config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.splitlines()[-1].endswith("s3://bucket/runs/cloud/model")
    with (bucket / "runs/cloud/model").local() as model:
        load_narrator(model)
