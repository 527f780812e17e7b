"""A small corpus in shards and the means to start, kill and compare training runs on it."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import yaml

from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import list_clips
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.manifest import step_directory
from tests.processes import descendants, title

ROOT = Path(__file__).resolve().parents[3]
CORPUS = CorpusConfig(num_train=96, num_meta=16, num_val=16, num_test=16)
SETTINGS = {
    "global_batch_size": 16,
    "num_epochs": 2.0,
    "log_every": 1,
    "checkpoint_every": 4,
    "meta": {"batch_size": 8, "meta_every": 1},
    "model": {"preset": "tiny"},
}
NUM_STEPS = 12


def write_shards(directory: Path, *, seed: int = CORPUS.seed) -> Path:
    """Write the corpus straight to two shards with their index, without Ray."""
    directory.mkdir(parents=True)
    corpus = CORPUS.model_copy(update={"seed": seed})
    clips = [generate_clip(corpus, split, number) for split, number in list_clips(corpus)]
    facts = {"duration_s": CORPUS.duration_s, "width": 48, "height": 48, "fps": float(CORPUS.fps), "codec": "h264"}
    rows, sizes = [], {}
    for number, part in enumerate((clips[:70], clips[70:])):
        name = f"clips-{number:06d}.tar"
        samples = [(generated.clip, generated.video, "mp4") for generated in part]
        places = write_shard(directory / name, samples)
        rows += [index_row(clip, place, name, facts) for (clip, *_), place in zip(samples, places, strict=True)]
        sizes[name] = {"num_bytes": (directory / name).stat().st_size, "num_clips": len(part)}
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return directory


def start_training(folder: Path, shards: Path | str, run: str, **settings) -> subprocess.Popen:
    """Start jobs/train.py as a user would; its output goes to <run>.log."""
    with open(folder / f"{run}.log", "ab") as log:
        return subprocess.Popen(
            training_command(folder, shards, run, **settings),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ,
        )


def training_command(folder: Path, shards: Path | str, run: str, **settings) -> list[str]:
    """Return the command of a run whose config is written to <run>.yaml."""
    config = folder / f"{run}.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | {"shards": str(shards), "storage": str(folder), "run": run} | settings))
    return [sys.executable, str(ROOT / "jobs/train.py"), str(config)]


def wait_until(condition, *, timeout_s: float = 300.0) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.02)


def checkpoint(folder: Path, run: str, step: int) -> Path:
    """Return the folder of a checkpoint."""
    return folder / run / "checkpoints" / step_directory(step)


def train_workers(process_or_pid: int) -> list[psutil.Process]:
    """Return the Ray Train workers below a process, by the title Ray gives them."""
    return [child for child in descendants(process_or_pid) if "RayTrainWorker" in title(child)]


def outcome(folder: Path, run: str) -> dict:
    """Return what a finished run learned: hashes of its weights, its losses by step, its validation."""
    last = checkpoint(folder, run, NUM_STEPS)
    records = read_metrics(Place.of(folder / run))
    return {
        "weights": {
            name: hashlib.sha256((last / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "weight_net.safetensors")
        },
        "losses": [(r["step"], r["train/loss"], r["meta/loss"]) for r in records if "train/loss" in r],
        "validation": [(r["step"], r["val/t2v_R@1"], r["val/t2v_mean_rank"]) for r in records if "val/t2v_R@1" in r],
        "state": {k: json.loads((last / "train_state.json").read_text())[k] for k in ("step", "samples_seen")},
    }
