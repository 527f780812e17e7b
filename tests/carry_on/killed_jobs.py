"""Seven small jobs as a user starts them, and what each leaves when it is done, in a form that can be compared."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import yaml

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.experiments.study.results import read_experiments
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.lease import LEASE_NAME
from mama_ray.storage.places import Place
from tests.carry_on.write_folders import FOLDERS, STUDY, TRAIN
from tests.orchestration.captioning.captioning_runs import read_captions
from tests.orchestration.runs.training_runs import ROOT

MARK = "MAMA_RAY_TEST_START"  # in the environment of a start and of all that works for it
CORPUS = CorpusConfig(num_train=64, num_meta=8, num_val=8, num_test=8, image_size=32)
NUM_KILLS = {"prepare": 5, "caption": 4, "train": 5, "narrator": 4, "tune": 4, "evaluate": 4, "study": 4}
FEW_KILLS = {"prepare": 2}
NARRATOR = {
    "global_batch_size": 8,
    "num_workers": 1,
    "num_epochs": 1.6,
    "log_every": 1,
    "checkpoint_every": 2,
    "num_val_clips": 8,
    "model_dtype": "float32",
    "data": {"max_caption_tokens": 16},
}


@dataclass(frozen=True)
class KilledJob:
    """A program of jobs/, its settings for a folder, and what it leaves there."""

    name: str
    settings: Callable[[Path], dict]
    outcome: Callable[[Path], object]

    def start(self, folder: Path, mark: str) -> subprocess.Popen:
        """Start it in a folder; its output goes to <folder>/job.log."""
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "job.yaml"
        config.write_text(yaml.safe_dump(self.settings(folder)))
        command = [sys.executable, str(ROOT / f"jobs/{self.name}.py"), str(config)]
        options = {"cwd": ROOT, "env": os.environ | {MARK: mark}, "start_new_session": True}
        with (folder / "job.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)


def jobs_on(corpus: Path) -> list[KilledJob]:
    """Return the jobs: prepare on a generated corpus, the others on the shards and the model of this folder."""
    videos = {"videos": f"{corpus}/videos", "annotations": f"{corpus}/annotations.jsonl"}
    one_by_one = {"clips_per_shard": 8, "cpus_per_task": 4.0, "transcode": {"short_side": 24, "fps": 4.0}}
    shards = {"shards": str(FOLDERS / "shards")}
    captioning = shards | {"sampling": {"temperature": 0.0}, "pool": {"concurrent_batches": 1}}
    training = TRAIN | shards | {"model": {"pretrained": str(FOLDERS / "model")}}
    variants = {"plain": {"objective.margin": 0.0}, "margin": {"objective.margin": 0.2}}
    search = {"train": training | {"num_epochs": 1.6}, "variants": variants, "max_concurrent": 1}
    search["objectives"] = {"val/t2v_mean_rank": "min"}
    evaluation = shards | {"checkpoint": str(FOLDERS / "model"), "benchmark": "embedded", "batch_size": 2}

    def run_in(folder: Path) -> dict:
        return {"storage": str(folder), "run": "run"}

    return [
        KilledJob("prepare", lambda folder: videos | one_by_one | {"output": f"{folder}/out"}, _prepared),
        KilledJob("caption", lambda folder: captioning | {"output": f"{folder}/out"}, _captioned),
        KilledJob("train", lambda folder: training | {"num_epochs": 4.8} | run_in(folder), _trained),
        KilledJob("narrator", lambda folder: NARRATOR | shards | run_in(folder), _taught),
        KilledJob("tune", lambda folder: search | run_in(folder), _searched),
        KilledJob("evaluate", lambda folder: evaluation | {"output": f"{folder}/out"}, _evaluated),
        KilledJob("study", lambda folder: STUDY | {"storage": f"{folder}/out"}, _studied),
    ]


def alive_of(mark: str) -> list[psutil.Process]:
    """Return the processes that work for a start and still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _names(folder: Path, *ignored: str) -> list[str]:
    """Return the files below a folder; a lease or what was half written is none that a finished job leaves."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    kept = [name for name in names if not any(part in name for part in ignored)]
    assert not [name for name in kept if LEASE_NAME in name or name.endswith((".tmp", ".part"))]
    return kept


def _hashes(folder: Path, pattern: str) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob(pattern))}


def _prepared(folder: Path) -> object:
    out = folder / "out"
    refused = pq.read_table(out / "quarantine.parquet").to_pylist()
    return _names(out), pq.read_table(out / "index.parquet").to_pylist(), _hashes(out, "*.tar"), refused


def _captioned(folder: Path) -> object:
    out = folder / "out"
    rows = read_captions(out)
    assert len(rows) == len({row[:2] for row in rows})
    return _names(out, "report/"), rows


def _losses(run: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["train/loss"]) for record in read_metrics(Place.of(run)) if "train/loss" in record]


def _trained(folder: Path) -> object:
    run = folder / "run"
    (last,) = sorted((run / "checkpoints").iterdir())[-1:]
    learned = _hashes(last, "*.safetensors"), json.loads((last / "train_state.json").read_text())
    return _names(run, "tensorboard/", "ray_train/", "report/"), _losses(run), learned


def _taught(folder: Path) -> object:
    run = folder / "run"
    return (
        _names(run, "tensorboard/", "ray_train/", "report/"),
        _losses(run),
        _hashes(run / "model", "*.safetensors"),
    )


def _searched(folder: Path) -> object:
    trials = json.loads((folder / "run/trials.json").read_text())
    told = sorted((json.dumps(trial["point"]), trial["state"], trial["values"]) for trial in trials)
    assert len({trial["run"] for trial in trials}) == len(trials)
    runs = {json.dumps(trial["point"]): _losses(folder / "run/trials" / trial["run"]) for trial in trials}
    return _names(folder / "run", "trials/", "ray_tune/", "report/"), told, runs


def _evaluated(folder: Path) -> object:
    result = json.loads((folder / "out/embedded.json").read_text())
    del result["duration_s"]
    return _names(folder / "out"), result


def _studied(folder: Path) -> object:
    out = folder / "out"
    experiments = read_experiments(out / "results")
    runs = {name: [run.model_dump(exclude={"step_s"}) for run in found.runs] for name, found in experiments.items()}
    return _names(out / "cells"), _names(out / "results"), runs
