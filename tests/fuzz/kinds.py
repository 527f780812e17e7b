"""The kinds of files that are fuzzed: how a good one is made, how it is damaged, and who reads it."""

import contextlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from optuna.distributions import FloatDistribution

from mama_ray.captioning.prompts import PromptConfig
from mama_ray.captioning.table import CAPTION_SCHEMA, file_name, read_caption_files
from mama_ray.config import load_config
from mama_ray.data.annotations import read_annotations
from mama_ray.data.clip import clip_from_json
from mama_ray.data.index import read_index, shard_sizes
from mama_ray.data.narrations.__main__ import convert
from mama_ray.data.narrations.egoclip import read_egoclip
from mama_ray.data.shard import ShardError, scan_shard, write_shard
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.encoder.encoder import load_encoder
from mama_ray.errors import UserError
from mama_ray.models.pretrained import describe_model
from mama_ray.models.run_config import evaluation_resize, training_config
from mama_ray.models.weight_files import read_torch_file
from mama_ray.orchestration.prepare.foreign import clip_of
from mama_ray.orchestration.prepare.inputs import state_of
from mama_ray.orchestration.sweep.database import StudyStore, latest_by_run, requeue_unfinished
from mama_ray.reporting.runs_page import read_runs
from mama_ray.storage.manifest import require_whole_model, verify_manifest
from mama_ray.storage.places import Place
from mama_ray.training.checkpoint import read_train_state
from mama_ray.training.manifest import latest_valid_checkpoint, write_manifest
from tests.data.shard_factory import fake_clip, write_dataset
from tests.encoder.tiny_encoder import write_model, write_run
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_lines, mutate_tar, mutate_yaml

SPACE, OBJECTIVES = {"objective.margin": FloatDistribution(0.0, 0.5)}, {"val/t2v_R@1": "max"}


@dataclass(frozen=True)
class Kind:
    """`file` of the folder that `make` fills is damaged by `mutate` and read by `read`."""

    file: str
    make: Callable[[Path], object]
    mutate: Callable[[bytes, Any], bytes]
    read: Callable[[Path], object]
    others: tuple[str, ...] = field(default=())
    """Files that reading changes, and that are put back."""


def _tar(form: int) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        with tarfile.open(folder / "a.tar", "w", format=form) as archive:
            for number in range(4):
                for extension in ("mp4", "json", "txt", "jpg"):
                    long = "d" * 120 if number % 2 and form != tarfile.USTAR_FORMAT else "d"
                    member = tarfile.TarInfo(f"{long}/clip{number}.{extension}")
                    data = json.dumps({"caption": "a dog"}).encode() if extension == "json" else b"text " * 100
                    member.size = len(data)
                    member.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
                    archive.addfile(member, io.BytesIO(data))

    return make


def _read_tar(folder: Path) -> None:
    with Place.of(folder / "a.tar").open_file() as file:
        stream = io.BufferedReader(file, 1 << 20)
        for sample in scan_shard(stream, num_bytes=file.size(), max_video_bytes=1 << 26):
            with contextlib.suppress(ValueError):  # a row of the quarantine
                clip_of(sample, 1.0, default_split=None, source="human")


def _make_run(folder: Path) -> None:
    write_run(folder, {1: 10.0, 2: 20.0})


def _read_run(folder: Path) -> None:
    latest_valid_checkpoint(Place.of(folder))
    verify_manifest(Place.of(folder / "checkpoints/step_00000002"))
    require_whole_model(folder / "checkpoints/step_00000002")


def _read_model(folder: Path) -> None:
    describe_model(folder)
    load_encoder(folder, device="cpu", num_processes=1)


def _make_table(folder: Path) -> None:
    row = dict.fromkeys(CAPTION_SCHEMA.names) | {"clip_id": "a", "caption": "a dog", "flags": [], "sample": 0}
    pq.write_table(pa.Table.from_pylist([row] * 5, schema=CAPTION_SCHEMA), folder / file_name(0))
    (folder / "captions.json").write_text(json.dumps({"version": 2, "files": {file_name(0): 5}, "num_rows": 5}))


def _make_study(folder: Path) -> None:
    with StudyStore(None, "sweep", Place.of(folder)) as store:
        study = store.open_study(SPACE, OBJECTIVES, first_points=[{"objective.margin": 0.1}])
        for value in (1.0, 2.0, 3.0):
            trial = study.ask(dict(SPACE))
            trial.report(value, 1)
            study.tell(trial, value)
        study.ask(dict(SPACE))


def _read_study(folder: Path) -> None:
    with StudyStore(None, "sweep", Place.of(folder)) as store:
        study = store.open_study(SPACE, OBJECTIVES, first_points=[])
        requeue_unfinished(study)
        latest_by_run(study)


def _make_metrics(folder: Path) -> None:
    run = folder / "run"
    run.mkdir()
    lines = [{"format": 2, "step": step, "train/loss": 1.0, "val/t2v_R@1": 3.0, "time_s": 1e9} for step in range(5)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    environment = {"command": "x", "started_s": 1e9, "packages": {"torch": "2"}, "cluster": {"CPU": 2.0}}
    environment["data"] = {"num_clips": {"train": 3}, "contents": {"shards": "0"}}
    (run / "environment.json").write_text(json.dumps(environment))


def _make_annotations(folder: Path) -> None:
    rows = [{"video": f"{number}.mp4", "captions": ["a dog"], "start_s": 0.0, "end_s": 2.5} for number in range(50)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _make_inputs(folder: Path) -> None:
    inputs = {"sha256": "0", "from": "2 shards", "settings": "0", "shards": {"a.tar": [1, 2]}}
    (folder / "prepare.json").write_text(json.dumps({"inputs": inputs, "num_clips": 1}))


def _make_state(folder: Path) -> None:
    torch.save({"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}, folder / "optimizer.pt")
    record = {"step": 1, "num_steps": 2, "global_batch_size": 4, "torch_rng_state": "AAAA", "ema_num_averaged": 0}
    (folder / "train_state.json").write_text(json.dumps(record))
    write_manifest(folder, step=1, selection=None)


def _read_annotations(name: str) -> Callable[[Path], object]:
    return lambda folder: list(read_annotations(Place.of(folder / name), unknown_columns="ignore"))


def _make_shard(folder: Path) -> None:
    write_shard(folder / "a.tar", map(fake_clip, range(4)))


def _read_tokenizer(folder: Path) -> None:
    Tokenizer.from_directory(folder)(["a red thing"])


def _read_table(folder: Path) -> None:
    list(read_caption_files(Place.of(folder)))


def _read_optimizer(folder: Path) -> None:
    read_torch_file(folder / "optimizer.pt")


def _read_index(folder: Path) -> None:
    shard_sizes(read_index(Place.of(folder)))


def _make_narrations(folder: Path) -> None:
    records = [("uid", 0.5, 1.5, "#C C looks"), ("uid", 2, 3.5, ["#C C walks", "#C C runs"], [1.5, 2.5])]
    (folder / "a.pkl").write_bytes(pickle.dumps(records * 3))
    lines = ["video_uid\tclip_start\tclip_end\tclip_text", *["uid\t0.5\t1.5\t#C C looks"] * 3]
    (folder / "egoclip.csv").write_text("\n".join(lines) + "\n")


TARS = {
    "shard of ours": Kind("a.tar", _make_shard, mutate_tar, _read_tar),
    "ustar": Kind("a.tar", _tar(tarfile.USTAR_FORMAT), mutate_tar, _read_tar),
    "gnu tar": Kind("a.tar", _tar(tarfile.GNU_FORMAT), mutate_tar, _read_tar),
    "pax tar": Kind("a.tar", _tar(tarfile.PAX_FORMAT), mutate_tar, _read_tar),
}
SMALL = {
    "manifest": Kind("checkpoints/step_00000002/manifest.json", _make_run, mutate_json, _read_run),
    "model config": Kind("config.json", write_model, mutate_json, _read_model),
    "weights": Kind("model.safetensors", write_model, mutate_bytes, _read_model),
    "tokenizer": Kind("tokenizer.json", write_model, mutate_json, _read_tokenizer),
    "settings": Kind(
        "config.yaml",
        lambda folder: (folder / "config.yaml").write_text("data:\n  resize: squash\n  n: 1\nrun: a\n"),
        mutate_yaml,
        lambda folder: evaluation_resize(training_config(folder / "config.yaml")),
    ),
    "prompt": Kind(
        "a.yaml",
        lambda folder: (folder / "a.yaml").write_text("text: |\n  Describe the video.\nform: chat\n"),
        mutate_yaml,
        lambda folder: load_config(PromptConfig, folder / "a.yaml"),
    ),
    "index": Kind("index.parquet", lambda folder: write_dataset(folder, [3, 4]), mutate_bytes, _read_index),
    "table": Kind(file_name(0), _make_table, mutate_bytes, _read_table),
    "summary": Kind("captions.json", _make_table, mutate_json, _read_table),
    "study": Kind("study.db", _make_study, mutate_bytes, _read_study, ("study.db-journal",)),
    "metrics": Kind("run/metrics.jsonl", _make_metrics, mutate_lines, lambda folder: read_runs(Place.of(folder))),
    "environment": Kind("run/environment.json", _make_metrics, mutate_json, lambda folder: read_runs(Place.of(folder))),
    "annotations": Kind("a.jsonl", _make_annotations, mutate_lines, _read_annotations("a.jsonl")),
    "parquet": Kind("a.parquet", _make_annotations, mutate_bytes, _read_annotations("a.parquet")),
    "narrations": Kind(
        "a.pkl",
        _make_narrations,
        mutate_bytes,
        lambda folder: convert([folder / "a.pkl"], str(folder / "a.jsonl")),
        ("a.jsonl", "a.jsonl.refused.jsonl"),
    ),
    "egoclip": Kind(
        "egoclip.csv",
        _make_narrations,
        mutate_bytes,
        lambda folder: list(read_egoclip(Place.of(folder / "egoclip.csv"))),
    ),
    "clip": Kind(
        "clip.json",
        lambda folder: (folder / "clip.json").write_text(
            '{"clip_id": "a", "video_id": "v", "start_s": 0, "end_s": 1, "captions": [{"text": "a"}]}'
        ),
        mutate_json,
        lambda folder: clip_from_json((folder / "clip.json").read_bytes()),
    ),
    "prepare": Kind(
        "prepare.json",
        _make_inputs,
        mutate_json,
        lambda folder: state_of(Place.of(folder), {"sha256": "0", "from": "x", "settings": "0"}, foreign=True),
    ),
    "train state": Kind("train_state.json", _make_state, mutate_json, read_train_state),
    "optimizer": Kind("optimizer.pt", _make_state, mutate_bytes, _read_optimizer),
}
# What a reader may say; a clip of a shard is refused by a ValueError, which becomes its row in the quarantine.
EXPECTED: dict[str, tuple[type[BaseException], ...]] = {"clip": (ValueError,)}
TOLD = (UserError, ShardError)
optuna.logging.set_verbosity(optuna.logging.ERROR)
