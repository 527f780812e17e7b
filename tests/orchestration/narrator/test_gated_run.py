"""The gated narrator's job whole: from a dual encoder and a GPT-2 to a folder that the engine takes, killed or not."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GPT2LMHeadModel

from mama_ray.captioning.engines.captioner import inspect_captioner
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.models.narrator.load import load_gated_narrator
from mama_ray.orchestration.cluster.entry import find_user_error
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.run import run
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.manifest import list_checkpoints
from tests.captioning.narrator.gated_parts import write_dual_encoder, write_gpt2
from tests.orchestration.runs.training_runs import ROOT, wait_until, write_shards
from tests.processes import kill_tree

pytestmark = pytest.mark.ray

NUM_STEPS = 6
SETTINGS = {
    "model": {"preset": "gated_tiny"},
    "global_batch_size": 16,
    "num_epochs": 1.0,
    "num_workers": 1,
    "log_every": 1,
    "checkpoint_every": 2,
    "num_checkpoints_to_keep": 3,
    "num_val_clips": 8,
    "model_dtype": "float32",
    "data": {"max_caption_tokens": 16},
    "optim": {"warmup_share": 0.0, "lr": 0.01},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, str]:
    """A dual encoder in a run's folder, and a GPT-2."""
    encoder = write_dual_encoder(tmp_path_factory.mktemp("encoder"))
    gpt2 = write_gpt2(tmp_path_factory.mktemp("gpt2"))
    return {"model.gated.video_encoder": str(encoder), "model.gated.language_model": str(gpt2)}


def job_on(shards: Path, folder: Path, /, **overrides) -> NarratorJob:
    base = NarratorJob.model_validate(SETTINGS | {"model": {"preset": "gated_tiny", "gated": {"trains": "all"}}})
    return with_overrides(base, {"shards": str(shards), "storage": str(folder)} | overrides)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, shards, folder, parts) -> Path:
    """LaViLa's rule: the gated blocks learn, all else stays, dropout is active."""
    line = run(job_on(shards, folder, run="undisturbed", **parts, **{"model.gated.trains": "gated_blocks"}))
    assert line.endswith(str(folder / "undisturbed" / "model"))
    return folder / "undisturbed"


def records_of(run_folder: Path, name: str) -> list[tuple[int, float]]:
    return [(record["step"], record[name]) for record in read_metrics(Place.of(run_folder)) if name in record]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_only_what_lavila_trains_has_moved_and_the_folder_can_be_served(undisturbed, parts):
    model = undisturbed / "model"
    learned = load_gated_narrator(model)
    trained = set(learned.trained_parameter_names())
    told = GPT2LMHeadModel.from_pretrained(parts["model.gated.language_model"]).state_dict()
    for name, value in learned.text_decoder.state_dict().items():
        if f"text_decoder.{name}" not in trained:
            assert torch.equal(value, told[name]), name
    alphas = [value.item() for name, value in learned.named_parameters() if "alpha" in name]
    assert alphas and all(alphas), "the gates have opened"
    captioner = inspect_captioner(model, PromptConfig(text="describe the video"))
    assert (captioner.engine, captioner.num_frames) == ("gpt2", 4)
    assert not {"optimizer.pt", "train_state.json", "manifest.json"} & {path.name for path in model.iterdir()}


@pytest.mark.slow
def test_it_learns_and_its_captions_are_scored_on_a_named_subset(undisturbed):
    losses = records_of(undisturbed, "train/caption_loss")
    assert [step for step, _ in losses] == list(range(1, NUM_STEPS + 1))
    assert [step for step, _ in records_of(undisturbed, "val/CIDEr-D")] == [2, 4, 6]
    assert {value for _, value in records_of(undisturbed, "val/num_captions_scored")} == {8}
    result = json.loads((undisturbed / "report" / "captions.json").read_text())
    assert result["subset"]["num_clips"] == 8 and result["subset"]["num_of"] == 16 and result["subset"]["every"] is None
    assert "Java" in result["not_run"]["METEOR"]
    page = (undisturbed / "report" / "index.html").read_text()
    assert "8 of the 16 clips of val, evenly spread" in page and "not run" in page
    assert page.count("data:image/jpeg") > 1, "captions of val clips are shown"


@pytest.mark.slow
def test_a_run_that_was_killed_ends_bit_for_bit_as_if_undisturbed(undisturbed, shards, folder, parts):
    settings = SETTINGS | {"shards": str(shards), "storage": str(folder), "run": "killed"}
    gated = {name.rpartition(".")[2]: value for name, value in parts.items()} | {"trains": "gated_blocks"}
    config = folder / "killed.yaml"
    config.write_text(yaml.safe_dump(settings | {"model": {"preset": "gated_tiny", "gated": gated}}))
    # The driver and what it started; a Ray that it found running is another's.
    command = [sys.executable, "jobs/narrator.py", str(config)]
    driver = subprocess.Popen(command, cwd=ROOT, env=os.environ, start_new_session=True, stderr=subprocess.DEVNULL)
    first = Place.of(folder / "killed")
    wait_until(lambda: any(ref.problem is None for ref in list_checkpoints(first)) or driver.poll() is not None)
    was_running = driver.poll() is None
    kill_tree(driver)
    assert was_running, "it had ended before it was killed"
    run(job_on(shards, folder, run="killed", **parts, **{"model.gated.trains": "gated_blocks"}))
    for name in ("train/caption_loss", "val/caption_loss", "val/CIDEr-D"):
        assert records_of(folder / "killed", name) == records_of(undisturbed, name)
    for name in ("checkpoints/step_00000006/model.safetensors", "model/model.safetensors"):
        assert digest(folder / "killed" / name) == digest(undisturbed / name)


@pytest.mark.slow
def test_two_workers_resume_with_the_dropout_that_each_had(shards, folder, ray_cluster):
    """Every rank draws by itself, whichever checkpoint it goes on from."""
    run(job_on(shards, folder, run="pair", num_workers=2))
    shutil.copytree(folder / "pair", folder / "pair_resumed")
    shutil.rmtree(folder / "pair_resumed" / "model")
    for step in (4, 6):
        shutil.rmtree(folder / "pair_resumed" / "checkpoints" / f"step_{step:08d}")
    run(job_on(shards, folder, run="pair_resumed", num_workers=2))
    losses = [records_of(folder / name, "train/caption_loss") for name in ("pair", "pair_resumed")]
    assert losses[0] == losses[1]
    assert losses[0][-1][1] < losses[0][0][1] - 0.5


@pytest.mark.slow
def test_a_finished_narrator_is_taught_further_by_the_padded_mean(undisturbed, shards, folder):
    changes = {"model.pretrained": str(undisturbed / "model"), "model.gated.loss": "padded", "num_epochs": 0.3}
    run(job_on(shards, folder, run="further", **changes, **{"model.gated.trains": "gated_blocks"}))
    before, after = load_gated_narrator(undisturbed / "model"), load_gated_narrator(folder / "further" / "model")
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    moved = {name for (name, old), new in pairs if not torch.equal(old, new)}
    assert moved and moved <= set(before.trained_parameter_names())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"model.gated.video_encoder": "no/such-model"}, "no/such-model"),
        ({"prompt.text": "what is it?"}, "prompt says nothing to a gated narrator"),
        ({"data.max_caption_tokens": 100}, "longer than the narrator's context"),
    ],
)
def test_bad_input_is_one_clear_error(ray_cluster, shards, tmp_path, overrides, named):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what matters is the user's error inside
        run(job_on(shards, tmp_path, **overrides))
    error = find_user_error(caught.value)
    assert isinstance(error, UserError), repr(caught.value)
    assert named in str(error)
