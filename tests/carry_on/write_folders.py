"""Write the folders of tests/carry_on/folders: work of every kind that was begun and killed, as a commit left it.

    python -m tests.carry_on.write_folders    # from the repository's root, at the commit whose formats are to be kept

Run it only when a format has changed on purpose, at the last commit before that change, and put that commit's name into
COMMIT: folders written by today's code would prove nothing about yesterday's.

All jobs run as a user runs them. What going on never reads is left out: TensorBoard's files, Ray's own bookkeeping,
reports, checkpoints of trials that are done.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.models.pretrained import save_pretrained
from mama_ray.models.transformer import EncoderConfig
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.manifest import step_directory
from tests.orchestration.runs.training_runs import wait_until
from tests.processes import kill_tree

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = Path(__file__).with_name("folders")
COMMIT = "57ceba3"  # whose code wrote what is there
PLACE = Path(f"/tmp/mama_ray-{COMMIT}")  # no machine's own: configs hold absolute paths
SOURCE = PLACE / "source"  # where tests put it again, since a prepare is named by where its videos lie, too

CORPUS = {"num_train": 40, "num_meta": 8, "num_val": 8, "num_test": 8, "image_size": 32}
CLIPS_PER_SHARD = 16
PREPARE = {
    "videos": f"{SOURCE}/videos",
    "annotations": f"{SOURCE}/annotations.jsonl",
    "clips_per_shard": CLIPS_PER_SHARD,
}
TRAIN = {
    "shards": f"{PLACE}/shards",
    "model": {"pretrained": f"{PLACE}/model"},
    "data": {"num_frames": 2},
    "meta": {"batch_size": 4, "meta_every": 2},
    "global_batch_size": 8,
    "num_workers": 1,
    "log_every": 1,
    "checkpoint_every": 4,
}
MIXED = {"num_frames": 2, "captions": {"human": 0.5, "generated": 0.5}, "caption_tables": [f"{PLACE}/table_finished"]}
RUN = TRAIN | {"data": MIXED, "num_epochs": 4.8, "num_checkpoints_to_keep": 1}  # 24 steps
SWEEP = {
    "storage": str(PLACE),
    "run": "sweep",
    "train": TRAIN | {"num_epochs": 2.4, "num_checkpoints_to_keep": 1},
    "search_space": {"objective.margin": {"uniform": [0.0, 0.4]}, "optim.lr": {"log_uniform": [1e-4, 3e-3]}},
    "objectives": {"val/t2v_mean_rank": "min"},
    "num_samples": 4,
    "max_concurrent": 1,
}
SMALL_CORPUS = {"num_train": 16, "num_meta": 8, "num_val": 8, "num_test": 8, "image_size": 32}
STUDY = {
    "storage": f"{PLACE}/study",
    "pretraining": {
        "num_steps": 2,
        "batch_size": 8,
        "corpus": SMALL_CORPUS | {"domain": "source", "num_meta": 0},
        "size": {
            "video.width": 8, "video.num_layers": 1, "video.num_heads": 1, "text.width": 8, "text.num_layers": 1,
            "text.num_heads": 1, "dim": 8, "image_size": 32, "patch_size": 16,
        },
        "vocab_size": 514,
    },
    "cell": {
        "corpus": SMALL_CORPUS, "meta_set": {"size": 8}, "meta": {"batch_size": 4}, "num_steps": 4, "batch_size": 8,
        "num_evaluations": 2,
    },
    "seeds": [1],
    "tuning_seeds": [100],
    "methods": {
        "uniform": {},
        "pretrained": {"num_steps": 0},
        "learned": {"weighting.kind": "learned"},
        "mama": {"weighting.kind": "learned", "objective.margin": 0.05},
        "oracle": {"pairs": "true"},
    },
    "experiments": {
        "methods": {
            "title": "Methods",
            "question": "What do weights and margin do?",
            "methods": ["uniform", "pretrained", "learned", "mama", "oracle"],
        }
    },
    "num_parallel": 1,
}  # fmt: skip

TABLES = ("table_begun", "table_finished")
NOT_READ = ("tensorboard", "report", "ray_train", "ray_tune", ".staging-*", "*.tmp", "*.part", "*.log")


def main() -> None:
    """Run the jobs, kill those that are to be killed, and keep what they left."""
    PLACE.mkdir()
    corpus = {"corpus": CORPUS, "corpus_folder": str(SOURCE), "clips_per_shard": CLIPS_PER_SHARD}
    run("prepare", corpus | {"output": f"{PLACE}/shards"})
    begun = PREPARE | {"output": f"{PLACE}/prepare_begun", "cpus_per_task": 4.0}  # one shard after the other
    begin("prepare", begun, lambda: num_files("prepare_begun/.prepare/parts") == 2)
    write_model(PLACE / "model")
    pool = {"concurrent_batches": 1}  # else both chunks would be done at once
    caption = {"shards": f"{PLACE}/shards", "sampling": {"temperature": 0.0}, "pool": pool}
    run("caption", caption | {"output": f"{PLACE}/table_finished"})
    begun, parts = caption | {"output": f"{PLACE}/table_begun"}, "table_begun/.captioning/parts"
    begin("caption", begun, lambda: num_files(parts) == 1)
    run("train", RUN | {"storage": str(PLACE), "run": "run_whole"})
    begin("train", RUN | {"storage": str(PLACE), "run": "run_begun"}, lambda: is_past_checkpoint("run_begun", 8))
    begin("tune", SWEEP, lambda: is_past_checkpoint("sweep/trials/trial-0002", 4))
    begin("study", STUDY, lambda: num_files("study/cells") == 2)
    keep()


def start(job: str, config: dict) -> subprocess.Popen:
    """Start a program of jobs/ as a user would."""
    path = PLACE / f"{job}.log.yaml"
    path.write_text(yaml.safe_dump(config))
    with (PLACE / f"{job}.log").open("ab") as log:
        command = [sys.executable, f"jobs/{job}.py", str(path)]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def run(job: str, config: dict) -> None:
    """Do a job to its end."""
    process = start(job, config)
    if process.wait():
        raise RuntimeError((PLACE / f"{job}.log").read_text()[-3000:])


def begin(job: str, config: dict, is_begun: Callable[[], bool]) -> None:
    """Start a job and kill it, with all that works for it, once a part of its work is done."""
    process = start(job, config)
    wait_until(lambda: process.poll() is not None or is_begun())
    if process.poll() is not None:
        raise RuntimeError("ended before it was killed: " + (PLACE / f"{job}.log").read_text()[-3000:])
    kill_tree(process)


def num_files(folder: str) -> int:
    """Count what is whole in a folder of parts or results."""
    return sum(path.suffix in (".parquet", ".json") for path in (PLACE / folder).rglob("*"))


def is_past_checkpoint(run: str, step: int) -> bool:
    """Tell whether a run has the checkpoint of a step and has recorded a later one, which going on takes back."""
    if not (PLACE / run / "checkpoints" / step_directory(step)).is_dir():
        return False
    return any(record["step"] > step for record in read_metrics(Place.of(PLACE / run)))


def write_model(folder: Path) -> None:
    """Write a dual encoder of a few thousand weights, which the runs start from."""
    rows = [json.loads(line) for line in (SOURCE / "annotations.jsonl").read_text().splitlines()]
    tokenizer = Tokenizer.train([row["captions"][0]["text"] for row in rows], vocab_size=514, context_length=24)
    tower = EncoderConfig(width=8, num_layers=1, num_heads=1)
    sizes = {"image_size": 32, "patch_size": 16, "num_frames": 2, "place_init_std": 0.3}
    torch.manual_seed(0)
    model = ClipVip(
        ClipVipConfig(video=tower, text=tower, dim=8, vocab_size=tokenizer.vocab_size, context_length=24, **sizes)
    )
    save_pretrained(model, folder, tokenizer)


def keep() -> None:
    """Copy what was written to the repository, without what going on never reads and what tells of the machine."""
    shutil.rmtree(FOLDERS, ignore_errors=True)
    names = (
        "source",
        "shards",
        "prepare_begun",
        "model",
        "table_begun",
        "table_finished",
        "run_begun",
        "sweep",
        "study",
    )
    for name in names:
        shutil.copytree(PLACE / name, FOLDERS / name, ignore=shutil.ignore_patterns(*NOT_READ))
    shutil.copy(PLACE / "run_whole" / "metrics.jsonl", FOLDERS / "run_whole.jsonl")
    for trial in sorted((FOLDERS / "sweep" / "trials").iterdir())[:2]:  # those that are done
        shutil.rmtree(trial / "checkpoints")
    for corpus in (FOLDERS / "study").glob("corpus-*"):
        shutil.rmtree(corpus / "videos")  # decoded to frames.npy
        if json.loads((corpus / "corpus.json").read_text())["config"]["domain"] == "source":
            shutil.rmtree(corpus)  # the model that was pretrained on it is there
    for path in FOLDERS.rglob("environment.json"):
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"platform": "", "cluster": {}}, indent=1))
    with sqlite3.connect(FOLDERS / "sweep" / "study.db") as database:
        database.execute("VACUUM")


if __name__ == "__main__":
    main()
