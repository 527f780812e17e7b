"""One copy of a remote folder for all processes of a machine, and none left by those that were killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mama_ray.storage.node_copies import node_copy
from mama_ray.storage.places import Place

USES = """
import sys
from mama_ray.storage.node_copies import node_copy
from mama_ray.storage.places import Place

with node_copy(Place.of(sys.argv[1])) as folder:
    print(folder, (folder / "model.safetensors").stat().st_ino, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def model(s3_bucket, tmp_path, monkeypatch) -> Place:
    """A remote model; copies go below the test's own folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    place = Place.of(f"s3://{s3_bucket}/model")
    (place / "config.json").write_whole("{}")
    (place / "model.safetensors").write_whole(bytes(1 << 20))
    return place


def user_of(place: Place) -> subprocess.Popen:
    command = [sys.executable, "-c", USES, place.uri]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def copies_in(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob("mama_ray-models-*/*") if path.suffix != ".making")


def test_processes_at_the_same_time_share_a_copy_that_goes_with_the_last(model, tmp_path):
    users = [user_of(model) for _ in range(3)]
    told = {user.stdout.readline() for user in users}
    assert len(told) == 1 and told != {""}
    assert len(copies_in(tmp_path)) == 2  # with its lock
    for user in users[:2]:
        user.communicate("\n", timeout=60)
        assert user.returncode == 0
    assert len(copies_in(tmp_path)) == 2
    users[2].communicate("\n", timeout=60)
    assert copies_in(tmp_path) == []


def test_what_a_killed_process_left_is_used_or_removed_by_the_next(model, tmp_path):
    killed = user_of(model)
    told = killed.stdout.readline().split()
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert Path(told[0], "config.json").is_file()
    (model / "config.json").write_whole("[1]")  # of another size, so the next wants another copy
    with node_copy(model) as folder:
        assert (folder / "config.json").read_text() == "[1]"
        assert not Path(told[0]).exists()
        assert len(copies_in(tmp_path)) == 2
    assert copies_in(tmp_path) == []


def test_a_copy_that_was_cut_off_is_made_anew(model, tmp_path):
    with node_copy(model) as folder:
        pass
    partial = Path(f"{folder}.partial")
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    with node_copy(model) as again:
        assert again == folder
        assert (again / "model.safetensors").stat().st_size == 1 << 20
    assert copies_in(tmp_path) == []


def test_a_folder_that_is_not_there_leaves_nothing(model, tmp_path):
    with pytest.raises(FileNotFoundError), node_copy(model.parent / "other"):
        pass
    assert copies_in(tmp_path) == []


def test_a_local_folder_is_its_own_copy(tmp_path):
    with node_copy(Place.of(tmp_path)) as folder:
        assert folder == tmp_path
