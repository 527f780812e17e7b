"""How much memory an index takes in each job, up to 100 million clips: peak and CPU time of one process per stage.

    .venv/bin/python benchmarks/index_scale.py --clips 1000000 --folder /tmp/index_scale

Makes the parts of a prepare with rows of clips that are not there, and shards that are holes of the right size. Then
the stages run one after another, each in a process of its own: prepare's join, which makes the index; captioning's
look at its clips, its scan of what is done, and a process that serves rows; training's look at its clips and rows for
global batches, as they are and with a caption table, exclusions, shares and a drawn meta-set; evaluation's look at its
split. 100 million clips take some 40 GB in the folder, which is deleted at the end, and 20 GB of TMPDIR.
"""

import argparse
import json
import pickle
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.index import INDEX_NAME, INDEX_SCHEMA
from mama_ray.storage.places import Place

_CLIPS_PER_SHARD, _CLIPS_PER_VIDEO, _CLIP_BYTES = 256, 8, 3_000_000
_SHARDS_PER_PART = 256
_STEPS, _BATCH = 50, 1024
_CLIPS_PER_FILE = 4096  # of a caption table
_WORDS = "a person slowly cuts opens puts washes the red small knife onion door bowl on in from sink".split()  # noqa: SIM905
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def make_parts(folder: Path, num_clips: int) -> None:
    """Write the work folder of a prepare whose tasks are all done, and its shards, which are holes."""
    parts = folder / ".prepare/parts"
    parts.mkdir(parents=True)
    (folder / ".prepare/inputs.json").write_text("{}")
    rng = np.random.default_rng(0)
    sentences = pa.array([" ".join(rng.choice(_WORDS, 12)) for _ in range(4096)])
    size = _SHARDS_PER_PART * _CLIPS_PER_SHARD
    for number, start in enumerate(range(0, num_clips, size)):
        stop = min(start + size, num_clips)
        shards = {}
        for first in range(start, stop, _CLIPS_PER_SHARD):
            name = shard_name(first // _CLIPS_PER_SHARD)
            count = min(_CLIPS_PER_SHARD, stop - first)
            shards[name] = {"num_bytes": count * _CLIP_BYTES + 1024, "num_clips": count}
            with (folder / name).open("wb") as file:
                file.truncate(shards[name]["num_bytes"])
        table = rows(start, stop, sentences, rng)
        facts = {"shards": shards, "quarantine": [], "damage": None, "num_clips": len(table), "num_uncaptioned": 0,
                 "splits": {"train": len(table)}}  # fmt: skip
        schema = INDEX_SCHEMA.with_metadata({b"mama_ray.part": json.dumps(facts).encode()})
        pq.write_table(table.cast(schema), parts / f"{number:06d}.parquet", compression="zstd")


def shard_name(number: int) -> str:
    """Return the name of a shard."""
    return f"clips-{number:06d}.tar"


def rows(start: int, stop: int, sentences: pa.Array, rng: np.random.Generator) -> pa.Table:
    """Return index rows of clips with a human caption each; of 10,000 videos one is val, one test, one meta."""
    numbers = np.arange(start, stop)
    videos = numbers // _CLIPS_PER_VIDEO
    shards = pa.array([shard_name(number) for number in range(start // _CLIPS_PER_SHARD, -(-stop // _CLIPS_PER_SHARD))])
    splits = pa.array(["train", "val", "test", "meta"])
    split_of = np.where(videos % 10_000 < 4, videos % 10_000, 0)
    texts = sentences.take(pa.array(rng.integers(0, len(sentences), len(numbers))))
    sources = pa.array(["human"]).take(pa.array(np.zeros(len(numbers), int)))
    captions = pa.StructArray.from_arrays([texts, sources], ["text", "source"])
    known = {
        "clip_id": hexadecimal(videos * 8 + numbers % 8, 16),
        "video_id": hexadecimal(videos, 11),
        "shard": shards.take(pa.array(numbers // _CLIPS_PER_SHARD - start // _CLIPS_PER_SHARD)),
        "offset": pa.array(numbers % _CLIPS_PER_SHARD * _CLIP_BYTES + 512),
        "num_bytes": pa.array(rng.integers(2_000_000, _CLIP_BYTES, len(numbers))),
        "sha256": letters(_HEX[rng.integers(0, 16, (len(numbers), 64))]),
        "split": splits.take(pa.array(split_of)),
        "captions": pa.ListArray.from_arrays(pa.array(np.arange(len(numbers) + 1), pa.int32()), captions),
        "width": pa.array(np.full(len(numbers), 1280, np.int32)),
        "height": pa.array(np.full(len(numbers), 720, np.int32)),
        "duration_s": pa.array(np.full(len(numbers), 10.0)),
    }
    columns = [known.get(field.name, pa.nulls(len(numbers), field.type)) for field in INDEX_SCHEMA]
    return pa.table(
        [column.cast(field.type) for column, field in zip(columns, INDEX_SCHEMA, strict=True)], INDEX_SCHEMA
    )


def hexadecimal(numbers: np.ndarray, num_digits: int) -> pa.StringArray:
    """Return an id for each number, which tells nothing of its order."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    shifts = np.arange(num_digits, dtype=np.uint64) * np.uint64(4) + np.uint64(64 - 4 * num_digits)
    return letters(_HEX[((mixed[:, None] >> shifts) & np.uint64(15)).astype(np.int64)])


def letters(values: np.ndarray) -> pa.StringArray:
    """Return the rows of uint8 (rows, letters) as strings."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(values)))


def join(folder: Path) -> dict:
    """Make the index of the parts, as the last task of a prepare does."""
    from mama_ray.orchestration.prepare.join import join_parts

    names = sorted(path.stem for path in (folder / ".prepare/parts").iterdir())
    join_parts(str(folder), names)
    return {"index_bytes": (folder / INDEX_NAME).stat().st_size}


def caption_look(folder: Path) -> dict:
    """Look at the clips of a captioning job, as its first task does."""
    from mama_ray.orchestration.captioning.plan import _load_clips
    from mama_ray.orchestration.cluster.row_server import MAX_HELD_ROWS

    rows, (num_clips, num_shards, _) = _load_clips._function(str(folder), None, MAX_HELD_ROWS)
    return {"clips": num_clips, "shards": num_shards, "held": isinstance(rows, pa.Table)}


def caption_scan(folder: Path) -> dict:
    """Scan what is done of a captioning job that has just begun."""
    from mama_ray.data.index_file import open_index
    from mama_ray.orchestration.captioning.parts import chunk_clips_of
    from mama_ray.orchestration.captioning.pending import _find_pending

    count = len(open_index(Place.of(folder)))
    chunks, done, _ = _find_pending._function(str(folder / "captions"), count, chunk_clips_of(count))
    return {"chunks": len(chunks), "shared_bytes": chunks.nbytes + done.nbytes}


def caption_rows(folder: Path) -> dict:
    """Serve the rows of chunks, neighbours and others, of a captioning job."""
    from mama_ray.data.index_file import open_index
    from mama_ray.data.index_rows import IndexRows
    from mama_ray.orchestration.captioning.plan import COLUMNS

    rows = IndexRows(open_index(Place.of(folder)), COLUMNS)
    began, taken = time.process_time(), 0
    starts = np.random.default_rng(0).integers(0, max(1, len(rows) // 128), 200) * 128
    for start in [*range(0, min(len(rows), 2000 * 128), 128), *starts.tolist()]:
        taken += len(rows.slice(start, 128))
    return {"rows": taken, "cpu_ms_per_128_rows": round((time.process_time() - began) / taken * 128e3, 2)}


def train_look(folder: Path) -> dict:
    """Look at the clips of a training run, as its first task does."""
    from mama_ray.orchestration.training.data import _load
    from mama_ray.orchestration.training.settings import DataConfig

    *_, summary = _load._function(str(folder), DataConfig(), 0, None)
    return {"clips": summary["num_clips"], "held": not summary["is_served"]}


def make_captions(folder: Path) -> dict:
    """Write a caption table of all clips, in the index's order, and a list of excluded clips and captions."""
    from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, TABLE_VERSION, file_name
    from mama_ray.data.index_file import open_index
    from mama_ray.data.index_rows import IndexRows

    table_folder = folder / "captions"
    table_folder.mkdir()
    rng, files = np.random.default_rng(1), {}
    rows = IndexRows(open_index(Place.of(folder)), ("clip_id", "sha256"))
    flags = pa.array([[], ["too_long"]], CAPTION_SCHEMA.field("flags").type)
    with (folder / "exclude.csv").open("w") as listed:
        listed.write("clip_id,caption_id\n")
        for number, clips in enumerate(rows.batches(rows.columns, _CLIPS_PER_FILE)):
            count = len(clips)
            words = rng.choice(_WORDS, (count, 40))
            listed.writelines(f"{clip_id},\n" for clip_id in clips["clip_id"][::200].to_pylist())
            known = {
                "clip_id": clips["clip_id"],
                "video_sha256": clips["sha256"],
                "caption": pa.array([" ".join(own) for own in words]),
                "source": pa.array(["generated"] * count),
                "flags": flags.take(pa.array(rng.random(count) < 0.1).cast(pa.int64())),
            }
            columns = [known.get(field.name, pa.nulls(count, field.type)) for field in CAPTION_SCHEMA]
            table = pa.table(columns, names=CAPTION_SCHEMA.names).cast(CAPTION_SCHEMA)
            pq.write_table(table, table_folder / file_name(number), compression="zstd")
            files[file_name(number)] = count
    (table_folder / SUMMARY_NAME).write_text(json.dumps({"version": TABLE_VERSION, "files": files}))
    return {"table_bytes": sum(path.stat().st_size for path in table_folder.iterdir())}


def train_join(folder: Path) -> dict:
    """Look at the clips of a run with a caption table, exclusions, shares and a drawn meta-set, as its first task does;
    tells the disk that it took beside."""
    from mama_ray.orchestration.training.data import _load
    from mama_ray.orchestration.training.settings import DataConfig

    config = DataConfig(
        caption_tables=(str(folder / "captions"),),
        exclude=str(folder / "exclude.csv"),
        shares={"human": 0.5, "generated": 0.5},
        meta_draw=1000,
    )
    work = folder / "work"
    train, *_, facts, summary = _load._function(str(folder), config, 0, None, work=str(work))
    (folder / "train.pickle").write_bytes(pickle.dumps((train, facts)))
    shared = facts.clips_per_shard.nbytes + sum(own.rows.bits.nbytes for own in facts.sources.values())
    written = sum(path.stat().st_size for path in work.iterdir())
    return {"clips": summary["num_clips"], "held": not summary["is_served"], "shared_bytes": shared,
            "written_bytes": written, "excluded": summary["excluded"]}  # fmt: skip


def train_sources(folder: Path) -> dict:
    """Plan global batches with shares of sources and serve their rows out of what `train_join` wrote."""
    from mama_ray.data.plan import PlanConfig
    from mama_ray.data.sources import SourcePlan

    rows, facts = pickle.loads((folder / "train.pickle").read_bytes())  # noqa: S301 - written by the stage before
    plan = SourcePlan((len(rows), facts.sources), {"human": 0.5, "generated": 0.5}, PlanConfig())
    began = time.process_time()
    for step in range(_STEPS):
        rows.take(plan.global_batch(step, _BATCH)[0] % len(rows))
    return {"steps": _STEPS, "cpu_ms_per_1024_rows": round((time.process_time() - began) / _STEPS * 1e3, 1)}


def train_rows(folder: Path) -> dict:
    """Plan global batches by the counts of the shards and serve their rows."""
    from mama_ray.data.plan import EpochPlan, PlanConfig
    from mama_ray.orchestration.training.large_train import rows_of_splits

    columns = ("clip_id", "shard", "offset", "num_bytes", "sha256", "captions")
    rows = rows_of_splits(Place.of(folder), columns)["train"]
    plan = EpochPlan(rows.clips_per_shard().tolist(), PlanConfig())
    began = time.process_time()
    for step in range(_STEPS):
        rows.take(plan.global_batch(step, _BATCH)[0])
    return {"steps": _STEPS, "cpu_ms_per_1024_rows": round((time.process_time() - began) / _STEPS * 1e3, 1)}


def evaluate_look(folder: Path) -> dict:
    """Look at the test split, as the first task of an evaluation does."""
    from mama_ray.evaluation.benchmarks import load_benchmark_file
    from mama_ray.orchestration.cluster.named_configs import find_named
    from mama_ray.orchestration.evaluation.split import _load

    benchmark = load_benchmark_file(find_named("benchmark", "own"))
    _, (num_clips, *_) = _load._function(str(folder), benchmark)
    return {"clips": num_clips}


STAGES = {stage.__name__: stage for stage in (join, caption_look, caption_scan, caption_rows, train_look, train_rows,
                                              make_captions, train_join, train_sources, evaluate_look)}  # fmt: skip


def main() -> None:
    """Run one stage, or make the parts and run all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="made here, and deleted at the end")
    parser.add_argument("--stage", choices=STAGES, help="of a folder that is there")
    options = parser.parse_args()
    if options.stage:
        facts = STAGES[options.stage](options.folder)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = {"peak_mib": usage.ru_maxrss // 1024, "cpu_s": round(usage.ru_utime + usage.ru_stime, 1)}
        print(json.dumps(used | facts))
        return
    options.folder.mkdir(parents=True)
    try:
        make_parts(options.folder, options.clips)
        result = {"clips": options.clips, "stages": {name: run(name, options.folder) for name in STAGES}}
    finally:
        shutil.rmtree(options.folder)
    print(json.dumps(result, indent=1))


def run(stage: str, folder: Path) -> dict:
    """Run a stage in a process of its own; its line is told at once, as all of them may take an hour."""
    command = [sys.executable, __file__, "--folder", str(folder), "--stage", stage]
    line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    print(stage, line, file=sys.stderr, flush=True)
    return json.loads(line)


if __name__ == "__main__":
    main()
