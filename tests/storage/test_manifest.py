"""A folder with a manifest is what it says, or is named; a storage that fails is no damage."""

import json
import shutil
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from mama_ray.errors import UserError
from mama_ray.storage.manifest import MANIFEST, require_whole_model, verify_manifest
from mama_ray.storage.places import Place
from mama_ray.training.manifest import latest_valid_checkpoint, step_directory, write_manifest
from tests.data.test_reading import Storage

FILES = ("model.safetensors", "config.json", "tokenizer.json", "optimizer.pt", "train_state.json")


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of a checkpoint, outside of its run."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(f"{name} has content".encode())
    write_manifest(folder, step=3, selection=None)
    return folder


@pytest.mark.parametrize("name", FILES[:3])
def test_a_changed_file_of_the_model_is_named(copy, name):
    require_whole_model(copy)
    content = bytearray((copy / name).read_bytes())
    content[3] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=f"damaged model folder: got .*{name}: content differs") as refused:
        require_whole_model(copy)
    assert "copy the folder again" in str(refused.value)


def test_a_truncated_file_is_named_with_both_sizes(copy):
    (copy / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="4 bytes, manifest says 29"):
        require_whole_model(copy)


def test_what_only_going_on_takes_may_be_left_out_and_is_not_read(copy):
    (copy / "optimizer.pt").unlink()
    (copy / "train_state.json").write_text("{}")
    require_whole_model(copy)
    assert verify_manifest(Place.of(copy)) is not None, "of a checkpoint to go on from, everything counts"


def test_half_a_manifest_is_damage_and_none_or_that_of_another_program_is_not(copy):
    content = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text(content[:-9])
    with pytest.raises(UserError, match="manifest.json is damaged"):
        require_whole_model(copy)
    for foreign in ({"name": "an app"}, ["a"], {"files": ["a.js"]}, {"files": {"a.js": {"size": 1}}}):
        (copy / MANIFEST).write_text(json.dumps(foreign))
        require_whole_model(copy)
    (copy / MANIFEST).unlink()
    require_whole_model(copy)


def test_a_checkpoint_that_cannot_be_read_now_is_not_passed_over_for_an_older_one(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    run = tmp_path / "run"
    for step in (1, 3):
        shutil.copytree(copy, run / "checkpoints" / step_directory(step))
    assert latest_valid_checkpoint(Place.of(run)).step == 3
    storage = FailingStreams(f"{step_directory(3)}/model.safetensors")
    failing = Place(pafs.PyFileSystem(storage), str(run), str(run))
    with pytest.raises(UserError, match=f"the storage failed: got .*{step_directory(3)}/model.safetensors"):
        latest_valid_checkpoint(failing)
    storage.name = "nothing"
    assert latest_valid_checkpoint(failing).step == 3


class FailingStreams(Storage):
    """The disk, of which one file cannot be opened for now."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def open_input_file(self, path):
        self._fail_for(path)
        return super().open_input_file(path)

    def open_input_stream(self, path):
        self._fail_for(path)
        return super().open_input_stream(path)

    def _fail_for(self, path):
        if path.endswith(self.name):
            raise OSError("When reading: AWS Error INTERNAL_FAILURE")
