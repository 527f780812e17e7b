"""Training whose shards and storage are S3's: the same promises as on a disk, on another machine, through faults."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from mama_ray.storage.places import Place
from mama_ray.training.manifest import step_directory
from tests.orchestration.runs.training_runs import (
    NUM_STEPS,
    ROOT,
    outcome,
    start_training,
    wait_until,
    write_shards,
)
from tests.processes import kill_tree
from tests.storage.s3_faults import KINDS, FaultyProxy, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.promise]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory) -> dict:
    """The outcome of the same run on a disk, on one worker."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start_training(folder, shards, "run", num_workers=1)
    assert process.wait(timeout=400) == 0, (folder / "run.log").read_text()[-3000:]
    return outcome(folder, "run")


@pytest.fixture
def bucket(shards, s3_bucket) -> Place:
    """A bucket of S3 with the shards in it."""
    bucket = Place.of(f"s3://{s3_bucket}")
    pafs.copy_files(str(shards), f"{s3_bucket}/shards", destination_filesystem=bucket.filesystem)
    return bucket


def start_on_a_fresh_machine(monkeypatch, *arguments, **settings) -> tuple[subprocess.Popen, str]:
    """Start a run where nothing of an earlier one lies; returns the folder of all its local files, too."""
    folder = tempfile.mkdtemp(prefix="mr-", dir="/tmp")  # Ray's sockets lie in it, whose paths must be short
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setenv("RAY_TMPDIR", folder)
    return start_training(*arguments, num_workers=1, **settings), folder


def outcome_on(bucket: Place, folder: Path) -> dict:
    pafs.copy_files(f"{bucket.path}/runs/cloud", str(folder / "cloud"), source_filesystem=bucket.filesystem)
    return outcome(folder, "cloud")


def test_a_run_killed_with_its_machine_goes_on_from_s3_alone_bit_for_bit_and_is_evaluated_there(
    bucket, s3_server, s3_bucket, undisturbed, tmp_path, monkeypatch
):
    def exists(path: str) -> bool:
        return (bucket / f"runs/cloud/{path}").is_file()

    places = (tmp_path, f"s3://{s3_bucket}/shards", "cloud")
    runs, log = f"s3://{s3_bucket}/runs", tmp_path / "cloud.log"
    process, machine = start_on_a_fresh_machine(monkeypatch, *places, storage=runs)
    wait_until(lambda: exists(f"checkpoints/{step_directory(4)}/manifest.json"))
    kill_tree(process)
    assert any(Path(machine).iterdir()), "its local files lie elsewhere"
    shutil.rmtree(machine, ignore_errors=True)  # what was killed may still be on its way out
    assert not exists(f"checkpoints/{step_directory(NUM_STEPS)}/manifest.json"), "killed too late to prove anything"
    process, machine = start_on_a_fresh_machine(monkeypatch, *places, storage=runs)
    assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
    shutil.rmtree(machine, ignore_errors=True)  # what was killed may still be on its way out
    assert "resumed at step" in log.read_text()
    assert log.read_text().splitlines()[-1].endswith(f"{runs}/cloud")
    assert outcome_on(bucket, tmp_path) == undisturbed

    command = [sys.executable, "jobs/evaluate.py", "--checkpoint", f"{runs}/cloud", "--benchmark", "embedded"]
    monkeypatch.delenv("TMPDIR")
    monkeypatch.delenv("RAY_TMPDIR")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert exists("evaluation/embedded.json")
    assert exists("report/index.html")
    secrets = [log.read_text(), done.stdout, done.stderr]
    assert not any(s3_server["AWS_SECRET_ACCESS_KEY"] in text for text in secrets)


def test_faults_of_every_kind_change_nothing_of_what_a_run_learns(
    bucket, s3_server, s3_bucket, undisturbed, tmp_path, monkeypatch
):
    with serving(FaultyProxy(s3_server["AWS_ENDPOINT_URL"], seed=1)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        process = start_training(
            tmp_path,
            f"s3://{s3_bucket}/shards",
            "cloud",
            storage=f"s3://{s3_bucket}/runs",
            num_workers=1,
            max_failures=0,
        )
        assert process.wait(timeout=400) == 0, (tmp_path / "cloud.log").read_text()[-3000:]
    assert all(proxy.faults[kind] for kind in KINDS), (proxy.num_requests, proxy.faults)
    assert outcome_on(bucket, tmp_path) == undisturbed
