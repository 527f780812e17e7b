"""What is surely wrong with a job's inputs is told by every job before Ray starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from mama_ray.data.index import INDEX_SCHEMA, write_index
from mama_ray.storage.places import Place

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import json, sys
import ray
from mama_ray.config import with_overrides
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.run import run as narrator
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.run import sweep
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train

jobs = {"train": (TrainJob, train), "tune": (SweepJob, sweep), "narrator": (NarratorJob, narrator)}
jobs |= {"caption": (CaptionJob, caption), "evaluate": (EvaluateJob, evaluate)}
for name, settings in json.loads(sys.argv[1]):
    config, run = jobs[name]
    try:
        needed = {"checkpoint": "x", "benchmark": "embedded"} if name == "evaluate" else {}
        run(with_overrides(config(**needed), settings))
        print("nothing was refused")
    except ValueError as error:
        print(ray.is_initialized(), error)
"""


@pytest.fixture
def shards(tmp_path) -> Path:
    rows = [{"clip_id": f"{n:03d}", "split": "train", "shard": "a.tar", "offset": 512 * n} for n in range(200)]
    (tmp_path / "shards").mkdir()
    sizes = {"a.tar": {"num_bytes": 1024, "num_clips": 200}}
    write_index(Place.of(tmp_path / "shards"), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return tmp_path / "shards"


@pytest.mark.slow
def test_every_job_looks_at_its_inputs_before_ray_starts(shards, tmp_path):
    (tmp_path / "empty").mkdir()
    model = ROOT / "tests/carry_on/folders/model"
    storage, nowhere, empty = str(tmp_path / "runs"), str(tmp_path / "nowhere"), str(tmp_path / "empty")
    wrong = [
        ("train", {"storage": storage, "shards": nowhere}, "no index of clips"),
        ("train", {"storage": storage, "shards": str(shards)}, "meta-set too small: got 0 clips"),
        ("train", {"storage": storage, "shards": str(shards), "data.caption_tables": [empty]}, "no finished caption"),
        ("train", {"storage": storage, "shards": str(shards), "model.pretrained": empty}, "not the folder of a model"),
        ("train", {"storage": storage, "shards": str(shards), "data.tokenizer": empty}, "a folder with tokenizer.json"),
        ("tune", {"storage": storage, "train.shards": nowhere}, "no index of clips"),
        ("narrator", {"storage": storage, "shards": nowhere}, "no index of clips"),
        (
            "narrator",
            {"storage": storage, "shards": str(shards), "model.pretrained": empty},
            "not the folder of a model",
        ),
        ("caption", {"output": f"{storage}/c", "shards": nowhere}, "no index of clips"),
        ("caption", {"output": f"{storage}/c", "shards": str(shards), "split": "val"}, "no clips to caption"),
        ("caption", {"output": f"{storage}/c", "shards": str(shards), "model": empty}, "not the folder of a model"),
        ("evaluate", {"output": f"{storage}/e", "checkpoint": str(model), "shards": nowhere}, "no index of clips"),
    ]
    command = [sys.executable, "-c", PROGRAM, json.dumps([(name, settings) for name, settings, _ in wrong])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(wrong), done.stderr[-3000:]
    for line, (name, settings, told) in zip(lines, wrong, strict=True):
        assert line.startswith("False ") and told in line, (name, settings, line)
