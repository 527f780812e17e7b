"""The narrate job: windows of long videos stream through engines, and become time lines while they do.

    python jobs/narrate.py --videos my_hour.mp4 --model DIR_OR_HUB_ID --output out    # started again: goes on

A window is a clip of a captioning job, whose guarantees hold here: each is in the table once, whatever is killed, and
at most the batches in flight are narrated again.
"""

import contextlib
import logging
import os
import time
from pathlib import Path

import ray

from mama_ray.captioning.prompts import PromptConfig
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.film import write_film
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.copies import shared_captions
from mama_ray.orchestration.captioning.dry_run import describe_plan
from mama_ray.orchestration.captioning.finish import Gate, write_files
from mama_ray.orchestration.captioning.gpus import engine_on_gpus
from mama_ray.orchestration.captioning.job import EMBEDDED, PoolConfig, corpus_home
from mama_ray.orchestration.captioning.parts import WORK_FOLDER
from mama_ray.orchestration.captioning.plan import CaptionPlan, find_captioner, how_to_show, scan_pending
from mama_ray.orchestration.captioning.pool import PoolHistory, fit_pool
from mama_ray.orchestration.captioning.progress import CaptionProgress
from mama_ray.orchestration.captioning.report import write_caption_report
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.model_source import look_at_model
from mama_ray.orchestration.cluster.named_configs import load_named
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.orchestration.narration.folder import (
    constant_columns,
    enter,
    find_finished,
    leave,
    model_name,
    read_known,
)
from mama_ray.orchestration.narration.job import NarrateJob, with_absolute_paths
from mama_ray.orchestration.narration.planning import Planned, plan_narration
from mama_ray.orchestration.narration.source import WindowSource, start_count, total_of
from mama_ray.orchestration.narration.stream import narrate_windows
from mama_ray.orchestration.narration.timelines import Refresher, TimelineWork, write_timelines
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, join_uri, storage_errors

logger = logging.getLogger(__name__)

_MAX_PASSES = 3  # a second one is for parts that a power failure damaged, or that were not listed yet
_DEFAULT_HOME = "runs"


def narrate(job: NarrateJob) -> str:
    """Write or complete the narration of videos; returns the line that names it."""
    if job.videos and job.model is None:
        raise UserError(
            "the embedded narrator knows the embedded film alone, and would write nonsense of other videos",
            got="--videos without --model",
            remedy=f"name a captioner, such as --model llava-hf/llava-1.5-7b-hf, or say --model {EMBEDDED} to use it",
        )
    job = with_absolute_paths(job)
    prompt = None if job.prompt is None else load_named(PromptConfig, "prompt", job.prompt)
    if not job.dry_run:
        ensure_writable(job.output)
    ensure_readable(*job.videos, job.human, job.model)
    look_at_model(job.model if job.model != EMBEDDED else None)
    output = Place.of(job.output)
    # A look writes nothing, so it needs nothing to itself.
    with contextlib.nullcontext() if job.dry_run else Lease(output / LEASE_NAME, "narration"):
        connect()
        pool = fit_pool(job.pool, is_cluster="RAY_ADDRESS" in os.environ)
        with user_errors(), storage_errors(job.output):
            return _narrate(job, prompt, output, pool)


def _narrate(job: NarrateJob, prompt: PromptConfig | None, output: Place, pool: PoolConfig) -> str:
    started = time.monotonic()
    planned = plan_narration(
        job.videos or [_embedded_film(job.corpus, corpus_home(job.output))], job.windows, job.scenes, job.decode,
        human=job.human, human_times=job.human_times, known=read_known(output, job.scenes, job.decode),
    )  # fmt: skip
    plan, count = _plan_captions(job, prompt, planned)
    work = TimelineWork(
        job.output, planned.table, planned.videos, job.timeline, job.postprocess, job.quality,
        job.sampling.num_captions, model_name(job),
    )  # fmt: skip
    finished = find_finished(job, plan, output)
    if job.dry_run:
        return _tell_plan(plan, pool) if finished is None else f"done already: {job.output}"
    if finished is not None:
        write_timelines(work)  # in the style that is asked for now
        with contextlib.suppress(FileNotFoundError):  # a job was killed between its last two steps
            (output / WORK_FOLDER).delete_folder()
        return f"done already, {finished['num_rows']} rows; time lines written anew: {job.output}"
    enter(job, plan, planned, output)
    history, progress = PoolHistory(), CaptionProgress(plan.num_clips, table=job.output)
    summary = _caption_all(job, plan, work, pool, history, progress)
    # Before the report, whose pictures are read once more.
    decoded = {"num_frames": sum(v.num_frames for v in planned.videos), "num_decoded": total_of(count)}
    constants = constant_columns(job, plan)
    counts = write_caption_report(plan, constants, summary, progress.speed(), history)
    write_timelines(work)
    _require_captions(counts, job.output)
    leave(job, plan, output, {**counts, **decoded})
    outcomes = ", ".join(f"{counts['outcomes'].get(name, 0)} {name}" for name in ("good", "flagged", "error"))
    seconds, videos = time.monotonic() - started, plan.source.description
    return f"narrated {plan.num_clips} windows of {videos} in {seconds:.0f} s ({outcomes}): {job.output}"


def _require_captions(counts: dict, output: str) -> None:
    """Raise UserError where every row of the table is an error."""
    if counts["outcomes"].get("error") == counts["num_rows"]:
        raise UserError(
            "no window could be narrated",
            got=f"{counts['num_rows']} errors, such as: {counts['error']}",
            remedy=f"see {join_uri(output, 'report', 'index.html')}",
        )


def _plan_captions(
    job: NarrateJob, prompt: PromptConfig | None, planned: Planned
) -> tuple[CaptionPlan, ray.actor.ActorHandle]:
    model = None if job.model == EMBEDDED else job.model
    captioner = find_captioner(model, prompt, frames=job.frames, side=job.side, engine=job.engine.name)
    captioner.check_length(job.sampling.max_tokens, job.engine.max_model_len)
    count = start_count()
    plan = CaptionPlan(
        table=planned.table,
        num_clips=planned.num_windows,
        ids_sha256=planned.ids_sha256,
        source=WindowSource(len(planned.videos), count),
        output=job.output,
        model=model,
        captioner=captioner,
        show=how_to_show(captioner, job.frames, job.decode),
        sampling=job.sampling,
        engine=engine_on_gpus(captioner.engine, job.engine, job.pool.gpus_per_engine),
    )
    return plan, count


def _caption_all(
    job: NarrateJob,
    plan: CaptionPlan,
    work: TimelineWork,
    pool: PoolConfig,
    history: PoolHistory,
    progress: CaptionProgress,
) -> ray.ObjectRef:
    """Narrate what is pending and write the files of the table; returns a reference to their summary."""
    for _ in range(_MAX_PASSES):
        pending = scan_pending(plan)
        logger.info("%d of %d windows of %s to narrate", pending.num_clips, plan.num_clips, plan.source.description)
        if pending.num_clips:
            progress.start(plan.num_clips - pending.num_clips, history)
            refresher = Refresher(work, job.refresh_s)
            refresher.look()
            try:
                for counts in narrate_windows(plan, pending, pool, history):
                    progress.add(counts)
                    refresher.look()
            finally:
                refresher.close()
            progress.close()
        shared = shared_captions(plan, job.postprocess, job.quality.max_copies)
        summary, damaged = write_files(plan, Gate(job.postprocess, job.quality, shared), constant_columns(job, plan))
        if not damaged:
            return summary
    raise UserError(
        "parts of the table are damaged or missing again and again", got=damaged, remedy="check the storage"
    )


def _tell_plan(plan: CaptionPlan, pool: PoolConfig) -> str:
    table, line = describe_plan(plan, scan_pending(plan), pool)
    print(table)  # noqa: T201 - the job's result
    return line


def _embedded_film(corpus: CorpusConfig, home: str) -> str:
    """Return the film of the embedded corpus's val split, making it if need be."""
    from mama_ray.orchestration.prepare.embedded import folder_name

    home = home if Place.of(home).is_local else _DEFAULT_HOME
    folder = Path(join_uri(home, f"{folder_name(corpus)}-film")).absolute()
    with storage_errors(str(folder)):
        return str(write_film(folder, corpus, [("val", number) for number in range(corpus.num_val)]))
