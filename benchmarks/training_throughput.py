"""Ray's share of training's cost: clips/s of a training job over those of the same loop fed from memory without Ray.

    .venv/bin/python benchmarks/training_throughput.py [--rounds 3] [--output FILE]     # 6 minutes on two quiet cores

Both sides of a ratio have the same model, state, loop, clips and thread (one per worker), and take turns within a run:

    memory   processes without Ray: the batches lie decoded in memory (two workers: DDP over gloo)
    ray      jobs/train.py's own path: Ray Data decodes shards, Ray Train's workers learn and record (DDP over gloo)

Clips/s are those between the job's record after `skip` steps and its last: without start-up, first steps, checkpoints.
So with CPU seconds of the processes that learn, which other work on the machine changes less. Two cases:

    compute  a model that takes far longer than the decoder per clip
    decode   the smallest model on larger clips, which take longer to decode than to learn from

Two workers have twice the global batch; their scaling efficiency is clips/s over twice one worker's. No core is spare.
"""

import os

# Before torch and ray are imported: one thread per process, and workers of Ray as urgent as other processes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("RAY_worker_niceness", "0")

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import ray
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mama_ray.config import with_overrides
from mama_ray.data.batch import to_clip_batch
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.models.pretrained import from_preset, save_pretrained
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.training.clip_reader import meta_batches
from mama_ray.orchestration.training.data import RunData, load_run_data
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import run_to_end
from mama_ray.orchestration.training.worker import _build_reader, _build_state, build_model
from mama_ray.training.loop import train

CASES = {"compute, 1 worker": ("compute", 1), "compute, 2 workers": ("compute", 2), "decode, 1 worker": ("decode", 1)}
SPLITS = {"num_meta": 16, "num_val": 0, "num_test": 0}
CORPORA = {
    "compute": CorpusConfig(num_train=256, num_frames=4, **SPLITS),
    "decode": CorpusConfig(num_train=96, image_size=256, num_frames=16, **SPLITS),
}
MODELS = {
    "compute": {
        "video.width": 192, "video.num_layers": 6, "video.num_heads": 3, "text.width": 128, "text.num_layers": 4,
        "text.num_heads": 2, "image_size": 64, "patch_size": 16}, "decode": {},
}  # fmt: skip
# Steps of a run, how many come before the clock starts, and steps between records; a meta step is every second one.
STEPS = {"compute": (24, 4, 4), "decode": (48, 16, 8)}
SHORT_STEPS = {"compute": (4, 2, 2), "decode": (4, 2, 2)}
SETTINGS = {"meta": {"batch_size": 8, "meta_every": 2}, "checkpoint_every": 10**6, "max_failures": 0}
BATCH = ("frames", "token_ids", "rows", "valid")


@dataclass(frozen=True)
class Case:
    """A training job in one setting, and what a process without Ray needs for the same."""

    job: TrainJob
    num_steps: int
    skip: int
    summary: dict
    batches: str
    decode_s_per_clip: float

    @property
    def steady_clips(self) -> int:
        """Clips between the first and the last record."""
        return (self.num_steps - self.skip) * self.job.global_batch_size


def build_case(kind: str, num_workers: int, folder: Path, steps: dict = STEPS) -> Case:
    """Make shards and model, and decode this job's batches."""
    shards = embedded_shards(CORPORA[kind], str(folder))
    num_steps, skip, log_every = steps[kind]
    batch_size = 16 * num_workers
    job = TrainJob.model_validate(
        SETTINGS
        | {"shards": shards, "storage": str(folder), "global_batch_size": batch_size, "num_workers": num_workers}
        | {"num_epochs": num_steps * batch_size / CORPORA[kind].num_train, "log_every": log_every}
    )
    data = load_run_data(shards, job.data, seed=job.seed, tokenizer=None)
    job = with_overrides(job, {"model.pretrained": save_model(kind, data, folder / f"model-{kind}")})
    batches = folder / f"batches-{kind}-{num_workers}.npz"
    return Case(job, num_steps, skip, data.summary, str(batches), decode_batches(job, data, batches, num_steps))


def save_model(kind: str, data: RunData, folder: Path) -> str:
    """Write the case's model with the corpus's tokenizer, where jobs take pretrained weights from."""
    sizes = {name: data.summary[name] for name in ("vocab_size", "context_length")}
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    save_pretrained(from_preset("tiny", MODELS[kind] | sizes), folder)
    for name, content in ray.get(data.tokenizer_files).items():
        (folder / name).write_bytes(content)
    return str(folder)


def decode_batches(job: TrainJob, data: RunData, path: Path, num_steps: int) -> float:
    """Write every rank's batches of every step, and the meta-set; return CPU seconds per clip."""
    reader = _build_reader(job, data, build_model(job, data.summary))
    assembler, plan, size, num_ranks = reader.assembler(), reader.epoch_plan(), job.global_batch_size, job.num_workers
    assembler.assemble(*plan.global_batch(0, size))
    start = cpu_s_of_decoding()
    batches = [
        [assembler.assemble(*plan.local_batch(step, size, rank, num_ranks)) for step in range(num_steps)]
        for rank in range(num_ranks)
    ]
    seconds = (cpu_s_of_decoding() - start) / (num_steps * size)
    parts = {rank: {name: np.stack([b[name] for b in batches[rank]]) for name in BATCH} for rank in range(num_ranks)}
    parts["meta"] = reader.clips(data.meta).assemble(np.arange(len(ray.get(data.meta))))
    np.savez(path, **{f"{part}/{name}": values for part, arrays in parts.items() for name, values in arrays.items()})
    return seconds


def cpu_s_of_decoding() -> float:
    """Return the CPU seconds so far of this process and of those below it that decode its videos."""
    below = [child for child in psutil.Process().children() if "video.inspection" in " ".join(child.cmdline())]
    return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), *below))  # user and system


def train_from_memory(rank: int, case: Case, output: str) -> None:
    """Run the job's loop in this process on batches that lie in memory; rank 0 writes when each step ended."""
    torch.set_num_threads(1)
    job = case.job
    if job.num_workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{output}.ranks", rank=rank, world_size=job.num_workers)
    torch.manual_seed(job.seed)
    state = _build_state(job, build_model(job, case.summary), torch.device("cpu"), case.num_steps)
    with np.load(case.batches) as file:
        meta_set, stacked = ({name: file[f"{part}/{name}"] for name in BATCH} for part in ("meta", rank))
    own = [to_clip_batch({name: stacked[name][step] for name in BATCH}) for step in range(case.num_steps)]
    place = {"rank": rank, "world_size": job.num_workers}
    metas = meta_batches(meta_set, first_meta_step=0, batch_size=job.meta.batch_size, seed=job.seed, **place)
    ends: list[list[float]] = []
    clocks = (time.perf_counter, time.process_time)
    train(state, own, metas, report=lambda _: ends.append([now() for now in clocks]), measure_every=job.log_every)
    if rank == 0:
        Path(output).write_text(json.dumps(ends))
    if job.num_workers > 1:
        dist.destroy_process_group()


def rate_from_memory(case: Case) -> dict[str, float]:
    """Return the clips/s of the loop in processes without Ray."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "ends.json"
        mp.spawn(train_from_memory, args=(case, str(output)), nprocs=case.job.num_workers)
        ends = json.loads(output.read_text())
    seconds, cpu_s = (last - first for last, first in zip(ends[-1], ends[case.skip - 1], strict=True))
    return {"clips_per_s": case.steady_clips / seconds, "cpu_s": cpu_s}


def rate_through_ray(case: Case, run: str) -> dict[str, float]:
    """Return the clips/s of the job, its workers' mean CPU seconds, and the share of its time that it waited."""
    with watched_workers() as samples:
        run_to_end(with_overrides(case.job, {"run": run}))
    lines = (Path(case.job.storage) / run / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "train/loss" in record]
    before = next(record for record in records if record["step"] == case.skip)
    ends = [before["time_s"], records[-1]["time_s"]]
    seconds, cpu_s = (float(np.diff(pair)[0]) for pair in (ends, np.interp(ends, *zip(*samples, strict=True))))
    waited_s = [record["throughput/data_wait_s"] for record in records if record["step"] > case.skip]
    rates = {"clips_per_s": case.steady_clips / seconds, "cpu_s": cpu_s / case.job.num_workers}
    return rates | {"waiting_share": case.job.log_every * sum(waited_s) / seconds}


@contextmanager
def watched_workers() -> Iterator[list[tuple[float, float]]]:
    """Yield a list that grows by time of day and CPU seconds of all Ray Train workers below this process."""
    samples: list[tuple[float, float]] = []
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(0.25):
            total = 0.0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        total += sum(process.cpu_times()[:2])  # user and system
            samples.append((time.time(), total))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


def measure(cases: dict[str, Case], rounds: int) -> dict[str, list[dict]]:
    """Run every case both ways in every round, in turns that change sides from round to round."""
    found: dict[str, list[dict]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, case in cases.items():
            run = name.replace(", ", "-").replace(" ", "-") + f"-{number}"
            ways = {"memory": partial(rate_from_memory, case), "ray": partial(rate_through_ray, case, run)}
            found[name].append({way: ways[way]() for way in (ways if number % 2 == 0 else reversed(ways))})
            print(f"round {number + 1} of {rounds}, {name}: {found[name][-1]}", file=sys.stderr)
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the range."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _ratios(ours: list[dict], theirs: list[dict], key: str) -> dict[str, float]:
    return spread([one[key] / other[key] for one, other in zip(ours, theirs, strict=True)])


def summarise(found: dict[str, list[dict]], cases: dict[str, Case]) -> dict:
    """Return each case's ratios, and what two workers gain with Ray and without."""
    rows = {}
    for name, rounds in found.items():
        memory, through_ray = ([turn[way] for turn in rounds] for way in ("memory", "ray"))
        # Seconds of a core per clip; two workers' decode tasks take theirs from the cores that learn.
        learning_s = [cases[name].job.num_workers * turn["cpu_s"] / cases[name].steady_clips for turn in memory]
        rates = {"memory_clips_per_s": memory, "ray_clips_per_s": through_ray}
        rows[name] = {key: spread([turn["clips_per_s"] for turn in turns]) for key, turns in rates.items()} | {
            "ray_over_memory": _ratios(through_ray, memory, "clips_per_s"),
            "cpu_memory_over_ray": _ratios(memory, through_ray, "cpu_s"),
            "waiting_share": spread([turn["waiting_share"] for turn in through_ray]),
            "decode_over_learning": spread([cases[name].decode_s_per_clip / seconds for seconds in learning_s]),
        }
    one, two = found["compute, 1 worker"], found["compute, 2 workers"]
    gains = {way: _ratios([t[way] for t in two], [t[way] for t in one], "clips_per_s") for way in ("memory", "ray")}
    efficiency = {way: {name: value / 2 for name, value in gain.items()} for way, gain in gains.items()}
    return {"cases": rows, "efficiency_of_two_workers": efficiency}


def table_of(result: dict) -> str:
    """Return the results for reading: medians, with the range of the ratios over the rounds."""

    def ranged(value: dict[str, float]) -> str:
        return f"{value['median']:.2f} ({value['lowest']:.2f}-{value['highest']:.2f})"

    head = f"{'case':<20}{'memory':>8}{'ray':>8}{'ray / memory':>19}{'by CPU time':>19}{'waits':>7}{'decode/learn':>14}"
    lines = ["clips/s, their ratio and that of CPU seconds, median (range)", head]
    for name, row in result["cases"].items():
        rates = "".join(f"{row[key]['median']:>8.1f}" for key in ("memory_clips_per_s", "ray_clips_per_s"))
        ratios = "".join(f"{ranged(row[key]):>19}" for key in ("ray_over_memory", "cpu_memory_over_ray"))
        shares = f"{row['waiting_share']['median']:>7.3f}{row['decode_over_learning']['median']:>14.3f}"
        lines.append(f"{name:<20}{rates}{ratios}{shares}")
    lines += ["", "scaling efficiency from one to two workers"]
    lines += [f"{way:<20}{ranged(value):>20}" for way, value in result["efficiency_of_two_workers"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", dest="steps", action="store_const", const=SHORT_STEPS, default=STEPS)
    parser.add_argument("--output")
    args = parser.parse_args()
    connect()
    with tempfile.TemporaryDirectory(prefix="mama_ray-throughput-") as scratch:
        cases = {name: build_case(*which, Path(scratch), args.steps) for name, which in CASES.items()}
        found = measure(cases, args.rounds)
        ray.shutdown()
    result = {
        "setting": {
            "cores": os.cpu_count(), "models": MODELS, "steps_skip_log_every": args.steps, "job": SETTINGS,
            "corpora": {name: corpus.model_dump(mode="json") for name, corpus in CORPORA.items()}},
        "commit": subprocess.getoutput(f"git -C {Path(__file__).parent} describe --always --dirty"),
        "command": " ".join(["python", "benchmarks/training_throughput.py", *sys.argv[1:]]),
        **summarise(found, cases),
        "rounds": found,
    }  # fmt: skip
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")
    print(table_of(result))


if __name__ == "__main__":
    main()
