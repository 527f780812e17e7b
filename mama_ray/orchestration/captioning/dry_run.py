"""The dry run: what a captioning job would do, with time and tokens as measured on a few of its clips."""

import time
from dataclasses import dataclass

import numpy as np
import ray

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.generation import clip_seed
from mama_ray.captioning.engines.protocol import FRAMES, GRID, caption_all
from mama_ray.orchestration.captioning.decode import decode_chunk, shown_of
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.captioning.plan import CaptionPlan, planned_folder
from mama_ray.orchestration.captioning.source import ShowConfig
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.reporting.document import format_duration
from mama_ray.storage.waits import told_wait


@dataclass(frozen=True)
class Trial:
    """What one chunk took in one engine: clips and tokens written, seconds of start, of decoding, of captioning."""

    num_clips: int
    num_tokens: int
    start_s: float
    decode_s: float
    caption_s: float


def describe_plan(plan: CaptionPlan, pending: PendingChunks, pool: PoolConfig) -> tuple[str, str]:
    """Return the plan as a table and in one line: clips, tokens and time, from a trial of one chunk in one engine."""
    trial = None
    if pending.num_clips:
        task = _try_chunk.options(
            num_cpus=pool.cpus_per_engine,
            num_gpus=pool.gpus_per_engine,
            resources=pool.resources or None,
            label_selector=dict(pool.engine_labels) or None,
        )
        trial = ray.get(task.remote(plan, pending))
    rows = plan_rows(plan, pending.num_clips, trial, pool)
    width = max(map(len, rows)) + 2
    table = "\n".join(f"{name:{width}}{text}" for name, text in rows.items())
    left = rows.get("time", "nothing is left to do")
    return table, f"dry run, nothing written: {left} -> {plan.output}"


def plan_rows(plan: CaptionPlan, num_left: int, trial: Trial | None, pool: PoolConfig) -> dict[str, str]:
    """Return the table's rows by name; without a trial, what is known without one."""
    captioner, num_captions = plan.captioner, plan.sampling.num_captions
    num_prompt = captioner.num_prompt_tokens
    rows = {
        "clips": f"{_count(plan.num_clips, 'clip')} in {plan.source.description}, "
        f"{plan.num_clips - num_left:,} captioned already",
        "captions": f"{_count(num_captions, 'caption')} per clip",
        "model": f"{plan.model or 'embedded narrator'} ({captioner.architecture})",
        "shown": f"{_count(num_prompt, 'token')} of prompt with {_shown(plan.show)}",
    }
    if trial is not None:
        decode_s, caption_s = (num_left * seconds / trial.num_clips for seconds in (trial.decode_s, trial.caption_s))
        num_engines, engines_s = pool.max_size, caption_s / pool.max_size
        # What the engines eat: they wait for decoding where it has fewer CPUs than that.
        num_cpus = max(1, round(decode_s / max(engines_s, 1e-9)))
        limit = pool.max_decode_tasks  # each keeps a core busy
        seconds = max(engines_s, decode_s / limit if limit else 0.0)
        with_cpus = f" and {_count(limit, 'CPU')} for decoding" if limit else ""
        start = format_duration(trial.start_s)
        num_read, num_written = num_left * num_prompt, num_left * trial.num_tokens // trial.num_clips
        rows |= {
            "tokens": f"about {num_read:,} to read, {num_written:,} to write",
            "captioning": f"{format_duration(caption_s)} of an engine, after a start of {start}",
            "decoding": f"{format_duration(decode_s)} of a CPU; {_count(num_cpus, 'CPU')} would keep "
            f"{_count(num_engines, 'engine')} busy",
            "time": f"about {format_duration(trial.start_s + seconds)} with {_count(num_engines, 'engine')}{with_cpus}",
        }
    return rows | {"output": plan.output}


@ray.remote
def _try_chunk(plan: CaptionPlan, pending: PendingChunks) -> Trial:
    start_worker_logging()
    chunk = decode_chunk(plan, pending, 0)
    usable = [position for position, error in enumerate(chunk["error"]) if not error] or [0]
    began = time.perf_counter()
    with planned_folder(plan) as folder:
        with told_wait(f"starting an engine with {plan.model or 'the embedded narrator'}"):
            engine = build_engine(plan.captioner, folder, plan.sampling, plan.engine)
        start_s = time.perf_counter() - began
        began = time.perf_counter()
        shown = [shown_of(plan.show.kind, chunk, position) for position in usable]
        seeds = [clip_seed(plan.sampling.seed, str(chunk["clip_id"][position])) for position in usable]
        caption_all(engine, shown, seeds)
        caption_s = time.perf_counter() - began
        engine.close()
    decode_s = float(np.sum(chunk["decode_s"]) + np.sum(chunk["read_s"])) / len(chunk["row"]) * len(usable)
    return Trial(len(usable), engine.num_tokens, start_s, decode_s, caption_s)


def _shown(how: ShowConfig) -> str:
    """Return in words what the model is shown of a clip."""
    square = f"{how.side} x {how.side} pixels"
    if how.kind == GRID:
        return f"a picture of {square}"
    frames = _count(how.num_frames, "frame")
    return (
        f"{frames} of {square}"
        if how.kind == FRAMES
        else f"a video of {frames}, at most {how.side} pixels wide or high"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
