"""A second start of every job is refused in words, before Ray starts, and leaves what the first has as it is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.errors import UserError
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.run import study
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.duplicates.job import DuplicatesJob
from mama_ray.orchestration.duplicates.run import find_duplicates
from mama_ray.orchestration.features.job import FeaturesJob
from mama_ray.orchestration.features.run import make_features
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.run import run as teach_narrator
from mama_ray.orchestration.prepare.corpus import build_corpus
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run as prepare
from mama_ray.orchestration.rephrase.job import RephraseJob
from mama_ray.orchestration.rephrase.run import rephrase
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.run import sweep
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place
from tests.orchestration.runs.training_runs import ROOT, SETTINGS, wait_until, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LEASE_NAME}


def starts(shards: Path, folder: Path):
    """Return a start of every job that writes into `folder`, by what it is at work on."""
    place = {"storage": str(folder.parent), "run": folder.name}
    models = {"frame_model": "microsoft/resnet-101", "detector": "PekingU/rtdetr_r101vd"}
    return {
        "output of prepare": lambda: prepare(PrepareJob(videos=str(shards), output=str(folder))),
        "output of prepare: shards": lambda: prepare(PrepareJob(shards=str(folder))),
        "corpus": lambda: build_corpus(CorpusConfig(num_train=2), str(folder)),
        "caption table": lambda: caption(CaptionJob(shards=str(shards), output=str(folder))),
        "caption table: rephrased": lambda: rephrase(
            RephraseJob(shards=str(shards), model="google-t5/t5-small", output=str(folder))
        ),
        "table of features": lambda: make_features(FeaturesJob(shards=str(shards), output=str(folder), **models)),
        "run": lambda: train(TrainJob(shards=str(shards), **place)),
        "run: narrator": lambda: teach_narrator(NarratorJob(shards=str(shards), **place)),
        "sweep": lambda: sweep(SweepJob(train=TrainJob.model_validate(SETTINGS | {"shards": str(shards)}), **place)),
        "study": lambda: study(StudyJob(storage=str(folder))),
    }


@pytest.mark.parametrize("name", sorted(starts(Path(), Path())))
def test_a_second_start_is_refused_and_the_first_is_left_alone(name, shards, tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "clips-000000.tar.0123abcd.tmp").write_bytes(b"what the first start is writing")
    before, ray_ran = files_of(folder), ray.is_initialized()
    what = name.partition(":")[0]
    wanted = f"another start is at work on this {what}: got {re.escape(str(folder))}: host .*, pid .*, since .* UTC;"
    with Lease(Place.of(folder) / LEASE_NAME, what), pytest.raises(UserError, match=wanted):
        starts(shards, folder)[name]()
    assert files_of(folder) == before
    assert ray.is_initialized() == ray_ran


def test_a_second_search_for_duplicates_is_refused(shards, tmp_path):
    output = Place.of(tmp_path / "duplicates.csv")
    with Lease(output.parent / f".duplicates.csv{LEASE_NAME}", "list of duplicates"), pytest.raises(UserError) as told:
        find_duplicates(DuplicatesJob(shards=str(shards), output=output.uri))
    assert "another start is at work on this list of duplicates" in str(told.value)
    assert not output.exists()


_JOB = """
import sys, time
from mama_ray.config import Config
from mama_ray.orchestration.cluster.entry import run_job
from mama_ray.storage.lease import Lease
from mama_ray.storage.places import Place

def work(job):
    with Lease(Place.of(sys.argv[1]), "run", beat_s=0.1):
        time.sleep(60)

run_job(Config, work, argv=[])
"""


def test_a_job_whose_place_was_taken_over_ends_with_status_1_and_one_line(tmp_path):
    path = tmp_path / LEASE_NAME
    process = subprocess.Popen([sys.executable, "-c", _JOB, path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: path.exists() or process.poll() is not None)
    record = json.loads(path.read_text())
    record["nonce"], record["process"]["host"] = "of another start", "elsewhere"

    def is_taken_over() -> bool:
        """Write the record, again where a beat of the process has just come upon it: real ones take a lock."""
        if json.loads(path.read_text()) != record:
            Place.of(path).write_whole(json.dumps(record))
        return process.poll() is not None

    wait_until(is_taken_over, timeout_s=60)
    assert process.wait(30) == 1
    (line,) = process.stderr.read().splitlines()
    assert line.startswith("error: another start has taken over this run") and "host elsewhere" in line
    assert json.loads(path.read_text()) == record
