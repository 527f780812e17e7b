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
from mama_ray.captioning.engines.protocol import Shown, caption_all
from mama_ray.captioning.narrator.folder import embedded_narrator
from mama_ray.captioning.pictures.show import ShownClip
from mama_ray.experiments.scaling.captioning import simulate
from mama_ray.experiments.scaling.scenario import CaptionScenario, steady_clips_per_s
from mama_ray.experiments.scaling.videos import encode_clip, write_shards
from mama_ray.orchestration.captioning.job import CaptionJob, PoolConfig
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS, WORK_FOLDER
from mama_ray.orchestration.captioning.plan import CaptionPlan, find_captioner, how_to_show, load_clips, scan_pending
from mama_ray.orchestration.captioning.pool import PoolHistory, fit_pool
from mama_ray.orchestration.captioning.stream import caption_chunks
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.storage.places import absolute_uri

_NUM_TIMED_CLIPS = 64
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
                chunk_clips=plan.chunk_clips, decode_tasks=max(1, (os.cpu_count() or 1) - 1),
                decode_s=stages["decode_s"],
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
    heavy = write_shards(folder / "heavy", videos, 768)
    embedded = embedded_shards(CaptionJob().corpus, absolute_uri(storage))
    long = SamplingConfig(min_tokens=64, max_tokens=64)
    return {
        "decode-bound": Regime(str(heavy), None, SamplingConfig(), EngineConfig()),
        "engine-bound": Regime(embedded, "train", long, EngineConfig(max_num_seqs=8)),
        "both busy": Regime(embedded, "train", SamplingConfig(min_tokens=24, max_tokens=24), EngineConfig()),
    }


def _plan(regime: Regime, output: str) -> CaptionPlan:
    job = CaptionJob()
    (Path(output) / WORK_FOLDER).mkdir(parents=True)  # as a job that enters its table does
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
    table = ray.get(plan.table)
    chunks = [table.slice(start, CHUNK_CLIPS).to_pylist() for start in range(0, _NUM_TIMED_CLIPS, CHUNK_CLIPS)]
    list(plan.source.show(chunks[0][:1], plan.show))  # the process that decodes starts
    began = time.perf_counter()
    clips = [shown for chunk in chunks for shown in plan.source.show(chunk, plan.show)]
    decode_s = (time.perf_counter() - began) / len(clips)
    engine = build_engine(plan.captioner, embedded_narrator(), regime.sampling, regime.engine)
    grids = [Shown(plan.show.kind, shown.content, shown.sha256) for shown in clips if isinstance(shown, ShownClip)]
    asked = [grids[number % len(grids)] for number in range(_NUM_ENGINE_CLIPS)]
    began = time.perf_counter()
    caption_all(engine, asked, range(len(asked)))
    engine_rate = len(asked) / (time.perf_counter() - began)
    engine.close()
    return {"decode_s": decode_s, "engine_clips_per_s": engine_rate}
