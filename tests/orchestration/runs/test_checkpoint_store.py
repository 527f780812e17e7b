"""Damaged, cut off or deleted checkpoints, on a disk and on S3: the one before is used, or the job says why not."""

import logging
import os
import stat
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import torch
from safetensors.torch import save_file

from mama_ray.errors import UserError
from mama_ray.models.weight_files import write_safetensors
from mama_ray.orchestration.runs.checkpoint_store import (
    newest_checkpoint,
    publish_checkpoint,
    retain_checkpoints,
    staging_directory,
)
from mama_ray.storage.places import Place
from mama_ray.training.manifest import (
    MANIFEST,
    UPLOADING,
    latest_valid_checkpoint,
    list_checkpoints,
    step_directory,
    write_manifest,
)
from tests.storage.blocking_storage import BlockingStorage


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """A run's folder."""
    if request.param == "disk":
        return Place.of(tmp_path / "run")
    bucket = request.getfixturevalue("s3_bucket")
    return Place.of(f"s3://{bucket}/runs/{tmp_path.name}")


def publish(place, tmp_path: Path, step: int, *, value: float | None = None, is_cut_off: bool = False) -> Place:
    """Publish a small checkpoint, or half of it."""
    staged = tmp_path / f"staged-{step}"
    staged.mkdir()
    (staged / "model.safetensors").write_bytes(f"weights of step {step}".encode() * 50)
    (staged / "config.json").write_text("{}")
    write_manifest(staged, step=step, selection=None if value is None else {"metric": "val/t2v_R@1", "value": value})
    if is_cut_off:
        (staged / MANIFEST).unlink()
        with pytest.raises(FileNotFoundError):
            publish_checkpoint(place, staged, step)
        return place / f"checkpoints/{step_directory(step)}"
    if place.is_local:
        Path(place.path, "checkpoints").mkdir(parents=True, exist_ok=True)
    return publish_checkpoint(place, staged, step)


def rewrite(place: Place, change) -> None:
    place.write_whole(change(place.read_bytes()))


DAMAGE = {
    "no manifest": lambda folder: (folder / MANIFEST).delete_file(),
    "half a manifest": lambda folder: rewrite(folder / MANIFEST, lambda data: data[: len(data) // 2]),
    "flipped byte": lambda folder: rewrite(folder / "model.safetensors", lambda data: bytes([data[0] ^ 1]) + data[1:]),
    "truncated file": lambda folder: rewrite(folder / "model.safetensors", lambda data: data[:-7]),
    "missing file": lambda folder: (folder / "model.safetensors").delete_file(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_of_a_damaged_checkpoint_the_one_before_is_used_and_with_none_left_the_run_stops(
    place, tmp_path, damage, caplog
):
    older, newer = (publish(place, tmp_path, step) for step in (4, 8))
    DAMAGE[damage](newer)
    with caplog.at_level(logging.WARNING), newest_checkpoint(place) as directory:
        assert (directory / "model.safetensors").read_bytes().startswith(b"weights of step 4")
    assert "damaged checkpoint passed over" in caplog.text and step_directory(8) in caplog.text
    DAMAGE[damage](older)
    with pytest.raises(UserError, match=r"every checkpoint of .* is damaged") as refused:
        latest_valid_checkpoint(place)
    assert place.path in str(refused.value)
    assert step_directory(4) in caplog.text


def test_an_upload_that_was_cut_off_never_was_a_checkpoint_and_is_replaced(s3_bucket, tmp_path):
    place = Place.of(f"s3://{s3_bucket}/runs/cut")
    cut = publish(place, tmp_path, 4, is_cut_off=True)
    assert (cut / UPLOADING).is_file()
    assert (cut / "model.safetensors").is_file()
    assert latest_valid_checkpoint(place) is None
    (tmp_path / "again").mkdir()
    publish(place, tmp_path / "again", 4)
    assert latest_valid_checkpoint(place).step == 4
    assert not (cut / UPLOADING).is_file()


def test_the_newest_and_the_best_are_kept(place, tmp_path):
    for step, value in ((4, 20.0), (8, 50.0), (12, 30.0), (16, 40.0)):
        publish(place, tmp_path, step, value=value)
        retain_checkpoints(place, 1, newest_step=step)
    assert [ref.step for ref in list_checkpoints(place)] == [8, 16]
    left = {info.base_name for info in (place / "checkpoints").entries()}
    assert left == {step_directory(8), step_directory(16)}


def test_a_damaged_checkpoint_beyond_the_run_pushes_no_whole_one_out(place, tmp_path):
    """Step 8's was damaged, the run went on from 4 and saves at 6 now: one is kept, and it must be step 6's."""
    publish(place, tmp_path, 4)
    DAMAGE["flipped byte"](publish(place, tmp_path, 8))
    assert latest_valid_checkpoint(place).step == 4
    publish(place, tmp_path, 6)
    retain_checkpoints(place, 1, newest_step=6)
    assert latest_valid_checkpoint(place).step == 6
    assert [ref.step for ref in list_checkpoints(place)] == [6]


def test_a_worker_that_is_behind_deletes_no_whole_checkpoint_of_those_that_took_over(place, tmp_path):
    for step in (4, 8, 12):
        publish(place, tmp_path, step)
    retain_checkpoints(place, 1, newest_step=4)
    assert [ref.step for ref in list_checkpoints(place)] == [4, 8, 12]


def test_a_checkpoint_whose_manifest_cannot_be_read_now_is_not_deleted_for_it(place, tmp_path):
    for step in (4, 8):
        publish(place, tmp_path, step)
    rewrite(place / f"checkpoints/{step_directory(8)}/{MANIFEST}", lambda data: b"")
    publish(place, tmp_path, 12)
    retain_checkpoints(place, 2, newest_step=12)
    assert [(ref.step, ref.problem is None) for ref in list_checkpoints(place)] == [(4, True), (8, False), (12, True)]


@pytest.mark.parametrize("num_deletions", range(4))
def test_a_deletion_cut_off_at_any_point_leaves_nothing_that_looks_like_a_checkpoint(tmp_path, num_deletions):
    storage = BlockingStorage()
    place = Place(pafs.PyFileSystem(storage), str(tmp_path / "run"), str(tmp_path / "run"))
    for step in (4, 8):
        publish(place, tmp_path, step)
    storage.deletions_left = num_deletions
    with pytest.raises(PermissionError, match="cut off"):
        retain_checkpoints(place, 1, newest_step=8)
    refs = list_checkpoints(place)
    assert [ref.step for ref in refs] == ([4, 8] if num_deletions == 0 else [8])
    assert all(ref.problem is None for ref in refs)
    storage.deletions_left = None
    publish(place, tmp_path, 12)
    retain_checkpoints(place, 1, newest_step=12)
    assert [ref.step for ref in list_checkpoints(place)] == [12]


@pytest.mark.parametrize(("umask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o007, 0o770, 0o660)])
def test_a_checkpoint_has_the_permissions_of_the_umask(tmp_path, umask, folder_mode, file_mode):
    """safetensors and mkdtemp write for the owner alone; a colleague on the same disk is to load the model."""
    before = os.umask(umask)
    try:
        run = Place.of(tmp_path / "run")
        run.make_folder()
        with staging_directory(run) as staged:
            save_file({"a": torch.ones(2)}, staged / "weight_net.safetensors")
            torch.save({"a": 1}, staged / "optimizer.pt")
            write_safetensors({"a": torch.ones(2)}, staged / "model.safetensors")
            write_manifest(staged, step=1, selection=None)
            target = Path(publish_checkpoint(run, staged, 1).path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [target, *target.iterdir()]}
    assert modes.pop(target.name) == folder_mode
    assert modes == dict.fromkeys(modes, file_mode) and len(modes) == 4
