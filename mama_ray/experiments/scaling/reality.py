"""The simulation against this machine: small captioning jobs, and what stage times that were measured apart predict.

A job's speed is that of the commits of the second half of its clips, in the run as in the simulation: chunks that were
decoded while the engine started, and that are in it side by side, would make a short job look faster than it is.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import GRID, Shown, caption_all
from mama_ray.captioning.narrator.folder import embedded_narrator
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.data.index import read_index
from mama_ray.data.reading import read_clip_bytes
from mama_ray.experiments.scaling.pipeline import simulate
from mama_ray.experiments.scaling.scenario import CaptionScenario, steady_clips_per_s
from mama_ray.experiments.scaling.videos import encode_clip, write_shards
from mama_ray.orchestration.captioning.job import CaptionJob, PoolConfig
from mama_ray.orchestration.captioning.plan import CaptionPlan, find_captioner, how_to_show, load_clips, scan_pending
from mama_ray.orchestration.captioning.pool import PoolHistory, fit_pool
from mama_ray.orchestration.captioning.stream import caption_chunks
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.storage.places import Place, absolute_uri

_NUM_TIMED_CLIPS = 48
_NUM_ENGINE_CLIPS = 512


@dataclass(frozen=True)
class Regime:
    """A job in which one stage should limit the others."""

    shards: str
    split: str | None
    sampling: SamplingConfig
    engine: EngineConfig


def check_against_reality(calibration: dict, storage: str = "runs") -> dict[str, dict[str, float | str]]:
    """Run every regime; return measured and predicted clips per second with their ratio."""
    # Ray's workers are polite by default: beside other work they would be slower than what is timed alone.
    os.environ.setdefault("RAY_worker_niceness", "0")
    connect()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, regime in _regimes(Path(folder), storage).items():
            plan = _plan(regime, f"{folder}/table-{name.replace(' ', '-')}")
            measured = _run(plan)
            stages = _stage_times(regime, plan)
            scenario = CaptionScenario(
                num_clips=plan.num_clips, num_engines=1, engine_clips_per_s=stages["engine_clips_per_s"],
                decode_tasks=max(1, (os.cpu_count() or 1) - 1), decode_s=stages["decode_s"], gets_per_clip=0,
                commit_s=calibration["table"]["commit_s_per_part"],
                driver_s_per_chunk=calibration["control"]["driver_cpu_s_per_chunk_1_engines"],
                ledger_s_per_chunk=2 / calibration["control"]["ledger_calls_per_s"],
            )  # fmt: skip
            run = simulate(scenario)
            predicted = steady_clips_per_s(run.commits)
            found[name] = {
                "clips": plan.num_clips,
                **{key: float(f"{value:.4g}") for key, value in stages.items()},
                "bottleneck": run.bottleneck,
                "predicted_clips_per_s": round(predicted, 2),
                "measured_clips_per_s": round(measured, 2),
                "predicted_over_measured": round(predicted / measured, 3),
            }
    ray.shutdown()
    return found


def _regimes(folder: Path, storage: str) -> dict[str, Regime]:
    videos = [encode_clip("320x240", seed) for seed in range(3)]
    heavy = write_shards(folder / "heavy", videos, "320x240", 768)
    embedded = embedded_shards(CaptionJob().corpus, absolute_uri(storage))
    long = SamplingConfig(min_tokens=64, max_tokens=64)
    return {
        "decode-bound": Regime(str(heavy), None, SamplingConfig(), EngineConfig()),
        "engine-bound": Regime(embedded, "train", long, EngineConfig(max_num_seqs=8)),
        "both busy": Regime(embedded, "train", SamplingConfig(min_tokens=24, max_tokens=24), EngineConfig()),
    }


def _plan(regime: Regime, output: str) -> CaptionPlan:
    job = CaptionJob()
    table, *facts = load_clips(regime.shards, regime.split)
    captioner = find_captioner(None, None, frames=job.frames, side=None)
    show = how_to_show(captioner, job.frames, job.decode)
    return CaptionPlan(table, *facts, output, None, captioner, show, regime.sampling, regime.engine)


def _run(plan: CaptionPlan) -> float:
    """Caption everything; return steady clips per second as the driver sees the commits."""
    pool = fit_pool(PoolConfig(), is_cluster=False)
    commits = []
    for counts in caption_chunks(plan, scan_pending(plan), pool, PoolHistory()):
        commits.append((time.perf_counter(), sum(counts["num_clips"])))
    return steady_clips_per_s(commits)


def _stage_times(regime: Regime, plan: CaptionPlan) -> dict[str, float]:
    """Return seconds of a core to read and decode a clip, and clips per second of the engine alone, one thread each."""
    folder = Place.of(regime.shards)
    columns = ["shard", "offset", "num_bytes", "sha256"]
    places = read_index(folder).select(columns).slice(0, _NUM_TIMED_CLIPS).to_pylist()
    side, grids = plan.captioner.side, []
    for number, place in enumerate([places[0], *places]):
        if number == 1:
            began = time.perf_counter()
        video = read_clip_bytes(folder, **place)
        grid = make_clip_grid(video, ClipGridConfig(), side=side)
        grids.append(Shown(GRID, grid.pixels, grid.sha256))
    decode_s = (time.perf_counter() - began) / len(places)
    engine = build_engine(plan.captioner, embedded_narrator(), regime.sampling, regime.engine)
    shown = [grids[number % len(grids)] for number in range(_NUM_ENGINE_CLIPS)]
    began = time.perf_counter()
    caption_all(engine, shown, range(len(shown)))
    engine_rate = len(shown) / (time.perf_counter() - began)
    engine.close()
    return {"decode_s": decode_s, "engine_clips_per_s": engine_rate}
