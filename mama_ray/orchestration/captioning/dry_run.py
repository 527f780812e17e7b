"""The dry run: what a captioning job would do, with time and tokens as measured on a few of its clips."""

import time

import numpy as np
import ray

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.generation import clip_seed
from mama_ray.captioning.engines.protocol import GRID, Shown, caption_all
from mama_ray.orchestration.captioning.decode import decode_chunk
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.plan import CaptionPlan, PendingChunks, captioner_folder


def describe_plan(plan: CaptionPlan, pending: PendingChunks, pool: PoolConfig) -> str:
    """Return the plan in one line: shards, clips, tokens and time, from a trial of one chunk in one engine."""
    captioner, sampling = plan.captioner, plan.sampling
    known = [
        f"{plan.num_clips} clips in {plan.num_shards} shards",
        f"{plan.num_clips - pending.num_clips} captioned already",
        f"{sampling.num_captions} caption(s) per clip",
        f"{captioner.architecture}, {captioner.num_prompt_tokens} tokens of prompt and {captioner.side} x "
        f"{captioner.side} pixels",
    ]
    if pending.num_clips:
        task = _try_chunk.options(num_cpus=pool.cpus_per_engine, num_gpus=pool.gpus_per_engine)
        num_clips, num_tokens, start_s, decode_s, caption_s = ray.get(task.remote(plan, pending))
        clips = pending.num_clips
        num_read, num_written = clips * captioner.num_prompt_tokens, clips * num_tokens // num_clips
        seconds = clips * caption_s / num_clips / pool.max_size
        known += [
            f"about {num_read} tokens to read and {num_written} to write",
            f"about {_hours(seconds)} with {pool.max_size} engine(s) after a start of {start_s:.0f} s",
            f"{_hours(clips * decode_s / num_clips)} of decoding, {decode_s / caption_s:.2f} CPUs for each engine",
        ]
    return f"dry run, nothing written: {'; '.join(known)} -> {plan.output}"


@ray.remote
def _try_chunk(plan: CaptionPlan, pending: PendingChunks) -> tuple[int, int, float, float, float]:
    """Return the numbers of clips and of tokens written, and the seconds of start, decoding and captioning."""
    chunk = decode_chunk(plan, pending, 0)
    usable = [position for position, error in enumerate(chunk["error"]) if not error] or [0]
    began = time.perf_counter()
    with captioner_folder(plan.model) as folder:
        engine = build_engine(plan.captioner, folder, plan.sampling, plan.engine)
        start_s = time.perf_counter() - began
        began = time.perf_counter()
        contents = [np.ascontiguousarray(chunk["shown"][position]) for position in usable]
        shown = [Shown(GRID, *pair) for pair in zip(contents, chunk["shown_sha256"][usable], strict=True)]
        seeds = [clip_seed(plan.sampling.seed, str(chunk["clip_id"][position])) for position in usable]
        caption_all(engine, shown, seeds)
        caption_s = time.perf_counter() - began
        engine.close()
    decode_s = float(np.sum(chunk["decode_s"]) + np.sum(chunk["read_s"])) / len(chunk["row"]) * len(usable)
    return len(usable), engine.num_tokens, start_s, decode_s, caption_s


def _hours(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
