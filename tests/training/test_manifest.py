"""When a checkpoint counts: it is whole, or it does not exist."""

import json

import pytest

from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.training.manifest import (
    MANIFEST,
    UPLOADING,
    latest_valid_checkpoint,
    list_checkpoints,
    resolve_checkpoint,
    step_directory,
    verify_manifest,
)


def test_selection_reads_validation_only(run):
    assert resolve_checkpoint(Place.of(run)).name == step_directory(2)
    evaluation = run / "evaluation"  # a better test result changes nothing
    evaluation.mkdir()
    (evaluation / "embedded.json").write_text(json.dumps({"step": 3, "t2v_R@1": 99.0}))
    assert resolve_checkpoint(Place.of(run)).name == step_directory(2)


def test_the_newest_whole_checkpoint_is_taken(run):
    assert latest_valid_checkpoint(Place.of(run)).step == 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete_file", "delete_manifest", "garble_manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_named(run, damage, caplog):
    newest = run / "checkpoints" / step_directory(3)
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "truncate":
        weights.write_bytes(content[:-10])
    elif damage == "flip":
        content[-5] ^= 1
        weights.write_bytes(content)
    elif damage == "delete_file":
        (newest / "optimizer.pt").unlink()
    elif damage == "delete_manifest":
        (newest / MANIFEST).unlink()
    else:
        (newest / MANIFEST).write_text("{")
    assert verify_manifest(Place.of(newest)) is not None
    assert latest_valid_checkpoint(Place.of(run)).step == 2
    assert step_directory(3) in caplog.text


def test_an_upload_cut_off_half_way_is_no_checkpoint(run):
    newest = run / "checkpoints" / step_directory(3)
    (newest / MANIFEST).unlink()
    (newest / UPLOADING).touch()
    assert [ref.step for ref in list_checkpoints(Place.of(run))] == [1, 2]


def test_a_run_whose_checkpoints_are_all_damaged_never_starts_afresh(run):
    for path in (run / "checkpoints").iterdir():
        (path / "train_state.json").write_text("{}")
    with pytest.raises(UserError, match="every checkpoint"):
        latest_valid_checkpoint(Place.of(run))
    assert latest_valid_checkpoint(Place.of(run / "elsewhere")) is None
