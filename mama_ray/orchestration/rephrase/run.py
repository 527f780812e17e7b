"""The rephrasing job: human captions of shards stream through engines, each place of each caption exactly once.

    python jobs/rephrase.py --shards URI --model DIR_OR_HUB_ID --output URI      # started again with the same: goes on

Whatever is killed, what was committed stays: at most the chunks in flight are rephrased again, to the same rows.
"""

import contextlib
import logging
import os
import time

from mama_ray.data.index_look import look_at_index
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.gpus import engine_on_gpus
from mama_ray.orchestration.captioning.job import corpus_home
from mama_ray.orchestration.captioning.parts import WORK_FOLDER
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.captioning.progress import CaptionProgress
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.model_source import look_at_model
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.rephrase.finish import write_files
from mama_ray.orchestration.rephrase.job import RephraseJob, with_absolute_paths
from mama_ray.orchestration.rephrase.plan import RephrasePlan, find_rephraser, load_texts, scan_pending
from mama_ray.orchestration.rephrase.report import write_rephrase_report
from mama_ray.orchestration.rephrase.stream import rephrase_chunks, require_pool
from mama_ray.orchestration.rephrase.table_folder import constant_columns, enter, find_finished, leave
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, join_uri, storage_errors

logger = logging.getLogger(__name__)

_MAX_PASSES = 3  # a second one is for parts that a power failure damaged, or that were not listed yet


def rephrase(job: RephraseJob) -> str:
    """Write or complete a caption table of paraphrases; returns the line that names it."""
    job = with_absolute_paths(job)
    output = Place.of(job.output)
    ensure_writable(job.output)
    ensure_readable(job.shards, job.model)
    look_at_model(job.model)
    if job.shards is not None:
        _look_at_clips(job.shards, job.split)
    with Lease(output / LEASE_NAME, "caption table"):
        connect()
        require_pool(job.pool, is_cluster="RAY_ADDRESS" in os.environ)
        with user_errors(), storage_errors(job.output):
            return _rephrase(job, output)


def _look_at_clips(shards: str, split: str | None) -> None:
    """Raise UserError for shards without an index, and for a split without clips."""
    counts = look_at_index(Place.of(shards))
    if counts is not None and not (counts[split] if split else sum(counts.values())):
        raise UserError(
            "no clips whose captions could be rephrased",
            got=f"{shards}, split {split or 'any'}",
            wanted=", ".join(f"{name} ({count} clips)" for name, count in counts.items() if count) or "some clips",
        )


def _rephrase(job: RephraseJob, output: Place) -> str:
    started = time.monotonic()
    shards = job.shards or embedded_shards(job.corpus, corpus_home(job.output))
    table, num_clips, num_texts, texts_sha256 = load_texts(shards, job.split)
    rephraser = find_rephraser(job.model, job.prompt, job.decoding, job.engine)
    plan = RephrasePlan(
        table,
        num_clips,
        num_texts,
        texts_sha256,
        job.output,
        job.model,
        rephraser,
        job.decoding,
        job.wording,
        engine_on_gpus(rephraser.engine, job.engine, job.pool.gpus_per_engine),
    )
    finished = find_finished(job, plan, output)
    if finished is not None:
        with contextlib.suppress(FileNotFoundError):  # of a job that was killed between its last two steps
            (output / WORK_FOLDER).delete_folder()
        return f"done already, {finished['num_rows']} rows: {job.output}"
    enter(job, plan, output)
    history, progress = PoolHistory(), CaptionProgress(num_clips, table=job.output)
    for _ in range(_MAX_PASSES):
        pending = scan_pending(plan)
        logger.info("%d of %d clips to do, %d human captions in all", pending.num_clips, num_clips, num_texts)
        if pending.num_clips:
            progress.start(num_clips - pending.num_clips, history)
            for counts in rephrase_chunks(plan, pending, job.pool, history):
                progress.add(counts)
            progress.close()
        summary, files, damaged = write_files(plan, job.quality, constant_columns(job, plan))
        if not damaged:
            break
    else:
        raise UserError(
            "parts of the table are damaged or missing again and again", got=damaged, remedy="check the storage"
        )
    counts = write_rephrase_report(plan, constant_columns(job, plan), summary, progress.speed(), history)
    _require_captions(counts, job.output)
    leave(job, plan, output, files, counts)
    told = ", ".join(f"{counts['outcomes'].get(name, 0)} {name}" for name in ("good", "flagged", "error"))
    seconds = time.monotonic() - started
    return f"rephrased {num_texts} captions of {num_clips} clips in {seconds:.0f} s ({told}): {job.output}"


def _require_captions(counts: dict, output: str) -> None:
    """Raise UserError where every row of the table is an error."""
    if counts["outcomes"].get("error") == counts["num_rows"]:
        raise UserError(
            "no caption could be rephrased",
            got=f"{counts['num_rows']} errors, such as: {counts['error']}",
            wanted="a model that says something else than what it is given",
            remedy=f"see {join_uri(output, 'report', 'index.html')}",
        )
