"""Starts that must fail, each in one line and before anything is served."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from tests.encoder.tiny_encoder import write_model
from tests.orchestration.serving.app_process import ROOT, free_port, make_shards, running_app
from tests.processes import descendants, is_gone


def end_of_start(data: Path, *arguments: str) -> str:
    """Return the last line of a start that must fail."""
    command = [sys.executable, "jobs/app.py", "--data", str(data), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr[-2000:]
    return done.stderr.splitlines()[-1]


def test_another_address_without_a_token_is_refused_in_one_line(tmp_path, small_shards):
    told = end_of_start(tmp_path, "--shards", str(small_shards), "--host", "0.0.0.0", "--port", str(free_port()))
    assert told.startswith("error: an address that other machines reach needs a token")


def test_a_port_that_is_taken_is_told_in_one_line(bare_app, tmp_path, small_shards):
    told = end_of_start(tmp_path, "--shards", str(small_shards), "--port", str(bare_app.port))
    assert told.startswith("error: the app cannot listen there")


def test_data_that_another_app_writes_are_refused(bare_app, small_shards):
    told = end_of_start(bare_app.log_file.parent, "--shards", str(small_shards), "--port", str(free_port()))
    assert told.startswith("error:")
    assert "app's data" in told


def test_shards_that_are_not_there_are_told_in_one_line(tmp_path):
    told = end_of_start(tmp_path, "--shards", str(tmp_path / "none"), "--port", str(free_port()))
    assert told.startswith("error: no index of clips")


def test_an_index_of_another_model_is_told_in_one_line(tmp_path, small_shards, small_index):
    other = write_model(tmp_path / "other", seed=1)
    given = ["--shards", str(small_shards), "--run", str(other), "--index", str(small_index)]
    told = end_of_start(tmp_path / "data", *given, "--port", str(free_port()))
    assert told.startswith("error: the index is of another model")


def test_an_index_of_other_shards_is_told_in_one_line(tmp_path, small_model, small_index):
    shards = make_shards(tmp_path, CorpusConfig(num_train=2, num_meta=0, num_val=0, num_test=0, seed=9))
    given = ["--shards", str(shards), "--run", str(small_model), "--index", str(small_index)]
    told = end_of_start(tmp_path / "data", *given, "--port", str(free_port()))
    assert told.startswith("error: the index is of other shards")


def test_a_disk_without_room_is_told_in_one_line(small_disk, small_shards):
    folder = small_disk("64k")
    with contextlib.suppress(OSError):
        (folder / "full").write_bytes(bytes(1 << 20))
    told = end_of_start(folder / "data", "--shards", str(small_shards), "--port", str(free_port()))
    assert told.startswith("error:")
    assert "space" in told.lower()


@pytest.mark.parametrize("name", ["narrations", "previews", "examples"])
def test_data_whose_folders_cannot_be_made_are_told_in_one_line(tmp_path, small_shards, name):
    (tmp_path / name).write_text("no folder")
    told = end_of_start(tmp_path, "--shards", str(small_shards), "--port", str(free_port()))
    assert told.startswith("error: ") and str(tmp_path / name) in told and "Error" not in told


def test_an_index_without_its_encoder_is_bad_usage(tmp_path, small_shards, small_index):
    command = [sys.executable, "jobs/app.py", "--shards", str(small_shards), "--index", str(small_index)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "index needs run" in done.stderr


def test_a_stopped_app_says_where_its_data_are_and_leaves_no_process(tmp_path, small_shards):
    with running_app(tmp_path, "--shards", str(small_shards)) as app:
        assert app.get("/api/clips/simple-0-train-000001/poster").status_code == 200
        below = descendants(app.process.pid)
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(20) == 128 + signal.SIGTERM
        assert "stopped by SIGTERM" in app.log().splitlines()[-1]
        assert below and all(is_gone(process) for process in below)
