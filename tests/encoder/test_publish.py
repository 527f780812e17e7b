"""What is handed on of a run: all that others need, nothing of where its data lay; and it comes back as the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import mama_ray
from mama_ray.encoder.publish import prepare_upload
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import ResultFile
from mama_ray.models.clip_vip.hf_layout import to_hf_clip
from mama_ray.models.heads.classes import ClassHeads, capture_class_head, write_class_head
from mama_ray.models.heads.folder import capture_head, write_head
from mama_ray.models.heads.head import build_head
from mama_ray.models.heads.settings import HeadConfig
from mama_ray.models.hub import HUB_FILES
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.weight_files import hash_weights
from mama_ray.training.checkpoint import save_state
from mama_ray.training.state import TrainState
from tests.encoder.hub_server import TOKEN, running_hub
from tests.encoder.tiny_encoder import write_model, write_run
from tests.evaluation.test_protocol import make_result
from tests.training.toy_runs import new_state
from tests.weighting.toys import INPUTS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
run: mine
shards: s3://secret-bucket/of/ours/shards
storage: /disks/mine/runs
data: {resize: center_crop, tokenizer: /disks/tokenizer, captions: {human: 0.5}}
model: {pretrained: openai/clip-vit-base-patch32}
objective: {margin: 0.2}
weighting: {kind: learned}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "mine", {10: 50.0, 20: 30.0}, config=CONFIG)
    (run / "checkpoints/step_00000010/optimizer.pt").write_bytes(b"state")
    (run / "checkpoints/step_00000010/weight_net.safetensors").write_bytes(b"state")
    record = {
        "step": 10,
        "num_steps": 20,
        "samples_seen": 160,
        "global_batch_size": 16,
        "validation": {"val/t2v_R@1": 50.0},
    }
    (run / "checkpoints/step_00000010/train_state.json").write_text(json.dumps(record))
    (run / "evaluation").mkdir()
    for name, step in (("msrvtt_1ka", 10), ("of_another_step", 20)):
        digest = hash_weights(run / f"checkpoints/step_{step:08d}")
        (run / "evaluation" / f"{name}.json").write_text(result_file(name, digest))
    (run / "evaluation/notes.json").write_text("{}")
    return run


@pytest.fixture
def upload(tmp_path) -> Path:
    (tmp_path / "upload").mkdir()
    return tmp_path / "upload"


def result_file(name: str, digest: str) -> str:
    result = make_result()
    checkpoint = result.checkpoint.model_copy(update={"sha256": digest})
    result = result.model_copy(update={"checkpoint": checkpoint})
    return ResultFile(benchmark=name, results=(result,), duration_s=1.0).to_json()


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def test_the_folder_holds_the_model_and_nothing_of_its_training_s_state(run, tmp_path):
    prepare_upload(run, tmp_path, repo_id="me/mine", license="cc-by-4.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "config.json", "config.yaml", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [word for word in (b"secret-bucket", b"/disks") if word in everything]
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (settings["data"]["resize"], settings["shards"]) == ("center_crop", "shards")


@pytest.mark.parametrize(("kind", "config"), [("answers", "head.json"), ("actions", "class_head.json")])
def test_a_head_is_published_and_no_file_of_the_training(tmp_path, upload, kind, config):
    folder = write_model(tmp_path / "checkpoint")
    save_state(training_state(), folder, selection=None)
    (folder / "head_ema.safetensors").write_bytes(b"state")
    (folder / "answers.json").write_text('["red", "blue"]')
    if kind == "answers":
        write_head(capture_head(build_head(HeadConfig(hidden_dim=8), 64, 2), ["red", "blue"]), folder)
    else:
        write_class_head(capture_class_head(ClassHeads(64, {"verb": 2, "noun": 2, "action": 1}), ("0:1",)), folder)
    state = {path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".pt", ".json")}
    assert {"average_loss.safetensors", "dials.safetensors", "trained.safetensors", "weight_net.safetensors"} <= state
    prepare_upload(folder, upload, repo_id="me/mine")
    assert sorted(path.name for path in upload.iterdir()) == sorted([
        "README.md", "answers.json", "config.json", "head.safetensors", config, "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ])  # fmt: skip
    assert {config, "answers.json"} <= set(HUB_FILES)


def training_state() -> TrainState:
    """With all that a weighted run may learn beside its model."""
    meta = {"margin": "per_sample", "gradient_decay": 0.7}
    return new_state(meta=meta, weighting=INPUTS.model_copy(update={"hidden_dim": 8}), ema_decay=0.9)


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model", "added_tokens.json", "processor_config.json"])
def test_what_reads_texts_and_pictures_is_published(tmp_path, upload, name):
    (write_model(tmp_path / "model") / name).write_text("{}")
    prepare_upload(tmp_path / "model", upload, repo_id="me/mine")
    assert (upload / name).is_file()


def test_shards_are_published_with_their_index(tmp_path, upload):
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    names = load_file(folder / "part-1.safetensors")
    index = {"weight_map": dict.fromkeys(names, "part-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    prepare_upload(folder, upload, repo_id="me/mine")
    from_pretrained(upload)


def test_weights_that_would_have_to_be_unpickled_are_not_published(tmp_path, upload):
    folder = write_model(tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no safetensors"):
        prepare_upload(folder, upload, repo_id="me/mine")


def test_the_card_has_what_the_hub_reads_and_the_results_of_exactly_these_weights(run, tmp_path):
    from huggingface_hub import ModelCard, ModelCardData

    prepare_upload(run, tmp_path, repo_id="me/mine", license="cc-by-4.0")
    card = (tmp_path / "README.md").read_text()
    front = front_matter(card)
    assert (front["license"], front["library_name"]) == ("cc-by-4.0", "mama_ray")
    assert front["base_model"] == "openai/clip-vit-base-patch32"
    for word in ("msrvtt_1ka", "12.2", "step 10 of 20", "val/t2v_R@1 50.00", "margin 0.2", "400 texts x 400 videos"):
        assert word in card
    assert "of_another_step" not in card
    data = ModelCard(card).data  # as the hub's own library reads it
    assert isinstance(data, ModelCardData)
    assert [(one.dataset_name, one.metric_name, one.metric_value) for one in data.eval_results or ()] == [
        ("msrvtt_1ka", "t2v_R@1", 12.25),
        ("msrvtt_1ka", "v2t_R@1", 11.0),
    ]


def test_a_licence_that_nobody_named_is_unknown(run, tmp_path):
    prepare_upload(run / "checkpoints/step_00000020", tmp_path, repo_id="me/mine")
    card = (tmp_path / "README.md").read_text()
    assert front_matter(card)["license"] == "unknown"
    assert "Nobody has said" in card


def test_what_is_no_model_is_not_published(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        mama_ray.push_to_hub(tmp_path, "me/mine")


PROGRAM = """
import sys
import mama_ray, numpy
try:
    mama_ray.push_to_hub(sys.argv[1], "me/mine", token="hf_wrong")
except ValueError as error:
    print(error)
print(mama_ray.push_to_hub(sys.argv[1], "me/mine", license="apache-2.0"))
encoder = mama_ray.load_encoder("me/mine")
numpy.save(sys.argv[2], encoder.encode_texts(["a red thing"]))
print(encoder.transform.resize)
print(mama_ray.load_encoder("others/clip").encode_texts(["a red thing"]).shape)
"""


def old_repository(model_folder: Path, folder: Path) -> dict[str, bytes]:
    """A CLIP as OpenAI's own repositories have it: weights in pytorch_model.bin alone."""
    to_hf_clip(from_pretrained(model_folder), folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    shutil.copyfile(model_folder / "tokenizer.json", folder / "tokenizer.json")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_a_process_of_its_own(endpoint: str, home: Path, *arguments: str) -> subprocess.CompletedProcess:
    """huggingface_hub reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **settings, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_run_is_published_and_comes_back_as_the_same_encoder(run, tmp_path):
    with running_hub() as hub:
        hub.repositories["others/clip"] = old_repository(run / "checkpoints/step_00000010", tmp_path / "clip")
        done = in_a_process_of_its_own(hub.endpoint, tmp_path, str(run), str(tmp_path / "features.npy"))
        assert done.returncode == 0, done.stderr[-3000:]
        refused, address, resize, shape = done.stdout.splitlines()
        files = hub.repositories["me/mine"]
    assert "the hub did not take the model" in refused
    assert "hf auth login" in refused
    assert (address, resize) == (f"{hub.endpoint}/me/mine", "center_crop")
    assert shape == "(1, 64)"
    assert {"README.md", "config.json", "config.yaml", "model.safetensors", "tokenizer.json"} <= set(files)
    assert files["model.safetensors"] == (run / "checkpoints/step_00000010/model.safetensors").read_bytes()
    assert hub.messages == ["Upload mine with mama_ray"]
    assert front_matter(files["README.md"].decode())["license"] == "apache-2.0"
    expected = mama_ray.load_encoder(run).encode_texts(["a red thing"])
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), expected)
