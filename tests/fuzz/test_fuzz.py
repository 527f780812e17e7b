"""Mutated files are read or told, in bounded time and memory; `python -m tests.fuzz` is the larger run."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.weight_files import read_torch_file
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_DEPTH, FileFormError, parse_json
from mama_ray.training.manifest import latest_valid_checkpoint
from tests.encoder.tiny_encoder import write_run

ROOT = Path(__file__).resolve().parents[2]


def test_mutated_files_are_read_or_told():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--tars", "40", "--small", "60", "--seed", "7"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["counts"]["tars: MiB more at the peak"]["MiB"] < 64
    assert found["counts"]["small: MiB more at the peak"]["MiB"] < 512


class Planted:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_is_never_unpickled(tmp_path):
    mark = tmp_path / "mark"
    for name, save in (("a.pt", torch.save), ("b.pt", lambda content, path: path.write_bytes(pickle.dumps(content)))):
        save({"weights": Planted(mark)}, tmp_path / name)
        with pytest.raises(UserError, match="cannot be read as tensors only"):
            read_torch_file(tmp_path / name)
    np.save(tmp_path / "c.npy", np.array([Planted(mark)], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "c.npy", allow_pickle=False)
    assert not mark.exists()
    pickle.loads((tmp_path / "b.pt").read_bytes())  # noqa: S301 - what the test guards against
    assert mark.exists()


def test_every_loader_that_can_unpickle_is_told_not_to():
    calls = []
    for path in (ROOT / "mama_ray").rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if "torch.load(" in line or "np.load(" in line:
                calls.append(f"{path.relative_to(ROOT)}:{number}")
                assert "weights_only=True" in line or "allow_pickle=False" in line, calls[-1]
            assert "pickle.load" not in line, f"{path}:{number}"
    assert calls


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), {1: 10.0, 2: 20.0})


def _with(**changes):
    return lambda content: content | changes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_with(files={}), "files = {}"),
        (_with(files={"../../etc/passwd": {"num_bytes": 1, "sha256": "0" * 64}}), "no plain name"),
        (_with(files={"/etc/passwd": {"num_bytes": 1, "sha256": "0" * 64}}), "no plain name"),
        (_with(files={"config.json": {"num_bytes": "1", "sha256": "0" * 64}}), "num_bytes"),
        (_with(files={"config.json": {"num_bytes": 10**9, "sha256": "0" * 64}}), "manifest says 1000000000"),
        (_with(step=-1), "step = -1"),
        (_with(step="2"), "step = '2'"),
        (_with(selection=[1]), "selection"),
        (lambda content: [content], "the whole"),
    ],
)
def test_a_bad_manifest_names_itself_and_the_checkpoint_before_is_taken(run, caplog, change, told):
    manifest = run / "checkpoints/step_00000002/manifest.json"
    good = manifest.read_text()
    try:
        manifest.write_text(json.dumps(change(json.loads(good))))
        assert latest_valid_checkpoint(Place.of(run)).step == 1
        assert "step_00000002" in caplog.text
        assert told in caplog.text
    finally:
        manifest.write_text(good)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_in_a_checkpoint_does_not_hang_the_resume(run, caplog, name, kind):
    path = run / "checkpoints/step_00000002" / name
    kept = path.rename(path.with_name("kept"))
    try:
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        assert latest_valid_checkpoint(Place.of(run)).step == 1
        assert "not a regular file" in caplog.text
    finally:
        path.unlink()
        kept.rename(path)


def test_json_that_is_nested_too_deeply_or_too_large_is_told(tmp_path):
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(FileFormError, match="nested too deeply"):
            parse_json("[" * depth + "]" * depth, "a.json")
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "a.json")
    with pytest.raises(FileFormError, match=r"not valid JSON.*digits"):
        parse_json("1" * 5000, "a.json")
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileFormError, match="1000 bytes at most"):
        Place.of(tmp_path / "a").read_bytes(1000)
