"""The captioning job: shards stream through engines that write captions, each clip's exactly once.

    python jobs/caption.py --shards URI --model DIR_OR_HUB_ID --output URI      # started again with the same: goes on

Whatever is killed, what was committed stays: at most the batches in flight are captioned again. Without arguments the
embedded narrator captions the embedded corpus.
"""

import contextlib
import logging
import os
import time

from mama_ray.captioning.prompts import PromptConfig
from mama_ray.data.index_look import look_at_index
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.copies import shared_captions
from mama_ray.orchestration.captioning.dry_run import describe_plan
from mama_ray.orchestration.captioning.finish import Gate, write_files
from mama_ray.orchestration.captioning.gpus import engine_on_gpus
from mama_ray.orchestration.captioning.job import EMBEDDED, CaptionJob, PoolConfig, corpus_home, with_absolute_paths
from mama_ray.orchestration.captioning.parts import WORK_FOLDER, chunk_clips_of
from mama_ray.orchestration.captioning.plan import (
    CaptionPlan,
    find_captioner,
    how_to_show,
    load_clips,
    require_embedded,
    scan_pending,
)
from mama_ray.orchestration.captioning.pool import PoolHistory, fit_pool
from mama_ray.orchestration.captioning.progress import CaptionProgress
from mama_ray.orchestration.captioning.report import write_caption_report
from mama_ray.orchestration.captioning.similarity import find_dual_encoder, score_captions
from mama_ray.orchestration.captioning.stream import caption_chunks
from mama_ray.orchestration.captioning.table_folder import constant_columns, enter, find_finished, leave
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.model_source import look_at_model
from mama_ray.orchestration.cluster.named_configs import load_named
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, join_uri, storage_errors

logger = logging.getLogger(__name__)

_MAX_PASSES = 3  # a second one is for parts that a power failure damaged, or that were not listed yet


def caption(job: CaptionJob) -> str:
    """Write or complete a caption table; returns the line that names it."""
    job = with_absolute_paths(job)
    prompt = None if job.prompt is None else load_named(PromptConfig, "prompt", job.prompt)
    output = Place.of(job.output)
    if not job.dry_run:
        ensure_writable(job.output)
    ensure_readable(job.shards, job.similarity, job.model)
    look_at_model(job.model)
    if job.shards is not None:
        _look_at_clips(job.shards, job.split)
    # A look writes nothing, so it needs nothing to itself.
    with contextlib.nullcontext() if job.dry_run else Lease(output / LEASE_NAME, "caption table"):
        connect()
        pool = fit_pool(job.pool, is_cluster="RAY_ADDRESS" in os.environ)
        with user_errors(), storage_errors(job.output):
            return _caption(job, prompt, output, pool)


def _look_at_clips(shards: str, split: str | None) -> None:
    """Raise UserError for shards without an index, and for a split without clips."""
    counts = look_at_index(Place.of(shards))
    if counts is not None and not (counts[split] if split else sum(counts.values())):
        raise UserError(
            "no clips to caption",
            got=f"{shards}, split {split or 'any'}",
            wanted=", ".join(f"{name} ({count} clips)" for name, count in counts.items() if count) or "some clips",
        )


def _caption(job: CaptionJob, prompt: PromptConfig | None, output: Place, pool: PoolConfig) -> str:
    started = time.monotonic()
    shards = job.shards or embedded_shards(job.corpus, corpus_home(job.output))
    table, num_clips, ids_sha256, source = load_clips(shards, job.split)
    model = None if job.model == EMBEDDED else job.model
    captioner = find_captioner(model, prompt, frames=job.frames, side=job.side, engine=job.engine.name)
    captioner.check_length(job.sampling.max_tokens, job.engine.max_model_len)
    show = how_to_show(captioner, job.frames, job.decode)
    engine = engine_on_gpus(captioner.engine, job.engine, pool.gpus_per_engine)
    facts = (num_clips, ids_sha256, source, job.output, model, captioner, show, job.sampling, engine)
    plan = CaptionPlan(table, *facts, chunk_clips=chunk_clips_of(num_clips))
    dual_encoder = None if job.similarity is None else find_dual_encoder(plan, job.similarity)
    finished = find_finished(job, plan, output)
    if finished is not None:
        _clear_away(output / WORK_FOLDER)
        return f"done already, {finished['num_rows']} rows: {job.output}"
    if job.model is None:
        require_embedded(shards, job.split)
    if job.dry_run:
        table, line = describe_plan(plan, scan_pending(plan), pool)
        print(table)  # noqa: T201 - the job's result
        return line
    enter(job, plan, output)
    history = PoolHistory()
    progress, scored_by = CaptionProgress(num_clips, table=job.output), {}
    for _ in range(_MAX_PASSES):
        pending = scan_pending(plan)
        logger.info("%d of %d clips in %s to caption", pending.num_clips, num_clips, source.description)
        if pending.num_clips:
            progress.start(num_clips - pending.num_clips, history)
            for counts in caption_chunks(plan, pending, pool, history):
                progress.add(counts)
            progress.close()
        if dual_encoder is not None:
            scored_by["similarity_weights_sha256"] = score_captions(plan, dual_encoder, job.postprocess, pool)
        shared = shared_captions(plan, job.postprocess, job.quality.max_copies)
        summary, damaged = write_files(plan, Gate(job.postprocess, job.quality, shared), constant_columns(job, plan))
        if not damaged:
            break
    else:
        raise UserError(
            "parts of the table are damaged or missing again and again", got=damaged, remedy="check the storage"
        )
    counts = write_caption_report(plan, constant_columns(job, plan), summary, progress.speed(), history)
    _require_captions(counts, job.output)
    leave(job, plan, output, counts | scored_by)
    told = ", ".join(f"{counts['outcomes'].get(name, 0)} {name}" for name in ("good", "flagged", "error"))
    return f"captioned {num_clips} clips in {time.monotonic() - started:.0f} s ({told}): {job.output}"


def _clear_away(work: Place) -> None:
    """Delete what a job left that was killed between its last two steps."""
    with contextlib.suppress(FileNotFoundError):
        work.delete_folder()


def _require_captions(counts: dict, output: str) -> None:
    """Raise UserError where every row of the table is an error."""
    if counts["outcomes"].get("error") == counts["num_rows"]:
        raise UserError(
            "no clip could be captioned",
            got=f"{counts['num_rows']} errors, such as: {counts['error']}",
            remedy=f"see {join_uri(output, 'report', 'index.html')}",
        )
