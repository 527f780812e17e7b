"""The captioning job: shards stream through engines that write captions, each clip's exactly once.

    python jobs/caption.py --shards URI --model DIR_OR_HUB_ID --output URI      # started again with the same: goes on

Whatever is killed, what was committed stays: at most the batches in flight are captioned again. Without arguments the
embedded narrator captions the embedded corpus.
"""

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.fs as pafs
from pydantic import Field

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.clip_grid import ClipGridConfig
from mama_ray.captioning.postprocess import PostprocessConfig
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.captioning.quality import QualityConfig
from mama_ray.captioning.table import SUMMARY_NAME, TABLE_VERSION, file_name
from mama_ray.config import Config, config_to_yaml
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.decode import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.caption_finish import Gate, shared_captions, write_files
from mama_ray.orchestration.caption_parts import CLIPS_PER_FILE, WORK_FOLDER
from mama_ray.orchestration.caption_plan import CaptionPlan, find_captioner, load_clips, scan_pending
from mama_ray.orchestration.caption_progress import CaptionProgress
from mama_ray.orchestration.caption_report import write_caption_report
from mama_ray.orchestration.caption_similarity import find_dual_encoder, score_captions
from mama_ray.orchestration.caption_stream import PoolConfig, PoolHistory, caption_chunks, fit_pool
from mama_ray.orchestration.caption_trial import describe_plan
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.named_configs import load_named
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import absolute_uri, filesystem_for, join_uri, read_json, storage_errors, write_text

logger = logging.getLogger(__name__)

_MAX_PASSES = 3  # a second one is for parts that a power failure damaged
_GENERATED = "generated"
_JOB_NAME = "job.json"


class CaptionJob(Config):
    """One caption table."""

    shards: str | None = None
    """Folder or URI of shards with their index; null makes and uses the embedded corpus."""

    corpus: CorpusConfig = CorpusConfig()
    """The embedded corpus, where `shards` is null."""

    split: Literal["train", "meta", "val", "test"] | None = None
    """Caption the clips of one split; null captions all."""

    model: str | None = None
    """Folder, URI or hub id of a LLaVA in Hugging Face's layout; null is the embedded narrator."""

    prompt: str | None = None
    """Name of a file in configs/prompt, or the path of such a YAML file; null is the prompt that a narrator was trained
    with, and `sentence` for other models."""

    output: str = "runs/captions"
    """Folder or URI of the caption table."""

    frames: ClipGridConfig = ClipGridConfig()
    """Key frames and their grid."""

    side: int | None = Field(None, ge=16, le=4096)
    """Pixels of the square grid; null is what the model's processor makes of a picture."""

    sampling: SamplingConfig = SamplingConfig()
    """How captions are drawn from the model."""

    engine: EngineConfig = EngineConfig()
    """How vLLM runs the model."""

    pool: PoolConfig = PoolConfig()
    """The pool of engines and what each reserves."""

    postprocess: PostprocessConfig = PostprocessConfig()
    """How a model's words become a caption."""

    quality: QualityConfig = QualityConfig()
    """Where the quality gate draws its lines."""

    similarity: str | None = None
    """Run, checkpoint or model folder of a dual encoder: its cosine of clip and caption becomes a column, and one below
    quality.min_similarity a flag."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""

    dry_run: bool = False
    """Print the plan, with time and tokens as measured on a few clips, and write nothing."""


# What may change between two starts of one job without changing what is in the table.
_MAY_CHANGE = {"output", "pool", "dry_run", "engine", "shards", "corpus"}


@dataclass(frozen=True)
class _Output:
    """Where the table goes."""

    filesystem: pafs.FileSystem
    path: str


def caption(job: CaptionJob) -> str:
    """Write or complete a caption table; returns the line that names it."""
    job = _with_absolute_paths(job)
    prompt = None if job.prompt is None else load_named(PromptConfig, "prompt", job.prompt)
    output = _Output(*filesystem_for(job.output))
    if not job.dry_run:
        ensure_writable(job.output)
    ensure_readable(job.shards)
    connect()
    pool = fit_pool(job.pool, is_cluster="RAY_ADDRESS" in os.environ)
    with storage_errors(job.output):
        return _caption(job, prompt, output, pool)


def _caption(job: CaptionJob, prompt: PromptConfig | None, output: _Output, pool: PoolConfig) -> str:
    started = time.monotonic()
    shards = job.shards or embedded_shards(job.corpus, _corpus_home(job.output))
    table, num_clips, num_shards, ids_sha256 = load_clips(shards, job.split)
    captioner = find_captioner(job.model, prompt, frames=job.frames, side=job.side)
    captioner.check_length(job.sampling.max_tokens, job.engine.max_model_len)
    plan = CaptionPlan(
        table, num_clips, num_shards, ids_sha256, shards, job.output, job.model, captioner, job.frames, job.sampling,
        job.engine, job.decode,
    )  # fmt: skip
    dual_encoder = None if job.similarity is None else find_dual_encoder(plan, job.similarity)
    finished = _finished(job, plan, output)
    if finished is not None:
        with contextlib.suppress(FileNotFoundError):  # of a job that was killed between its last two steps
            output.filesystem.delete_dir(f"{output.path}/{WORK_FOLDER}")
        return f"done already, {finished['num_rows']} rows: {job.output}"
    if job.dry_run:
        return describe_plan(plan, scan_pending(plan), pool)
    _enter(job, plan, output)
    history = PoolHistory()
    progress = CaptionProgress(num_clips, table=job.output)
    for _ in range(_MAX_PASSES):
        pending = scan_pending(plan)
        logger.info("%d of %d clips in %d shards to caption", pending.num_clips, num_clips, num_shards)
        if pending.num_clips:
            progress.start(num_clips - pending.num_clips, history)
            for counts in caption_chunks(plan, pending, pool, history):
                progress.add(counts)
            progress.close()
        if dual_encoder is not None:
            use_gpu = pool.gpus_per_engine > 0
            score_captions(plan, dual_encoder, job.postprocess, num_actors=pool.max_size, use_gpu=use_gpu)
        shared = shared_captions(plan, job.postprocess, job.quality.max_copies)
        summary, damaged = write_files(plan, Gate(job.postprocess, job.quality, shared), _constants(job, plan))
        if not damaged:
            break
    else:
        raise UserError("parts of the table are damaged again and again", got=damaged, remedy="check the storage")
    counts = write_caption_report(plan, _constants(job, plan), summary, progress.speed(), history)
    if counts["outcomes"].get("error") == counts["num_rows"]:
        raise UserError(
            "no clip could be captioned", got=f"{counts['num_rows']} errors, such as: {counts['error']}",
            remedy=f"see {join_uri(job.output, 'report', 'index.html')}"
        )  # fmt: skip
    _leave(job, plan, output, counts)
    told = ", ".join(f"{counts['outcomes'].get(name, 0)} {name}" for name in ("good", "flagged", "error"))
    return f"captioned {num_clips} clips in {time.monotonic() - started:.0f} s ({told}): {job.output}"


def _with_absolute_paths(job: CaptionJob) -> CaptionJob:
    """Name every place so that workers, whose working directory is another, find it too."""
    changes = {"output": absolute_uri(job.output)}
    if job.shards is not None:
        changes["shards"] = absolute_uri(job.shards)
    if job.similarity is not None:
        changes["similarity"] = absolute_uri(job.similarity)
    if job.model is not None and (Path(job.model).exists() or job.model.startswith((".", "~"))):  # else URI or hub id
        changes["model"] = absolute_uri(job.model)
    return job.model_copy(update=changes)


def _corpus_home(output: str) -> str:
    """The embedded corpus is kept beside the table, where other jobs look for it, too."""
    return output.rstrip("/").rpartition("/")[0] or "runs"


def _finished(job: CaptionJob, plan: CaptionPlan, output: _Output) -> dict | None:
    """Return the summary of a table that is finished; UserError when the folder holds another one, or its begin."""
    ours = _identity(job, plan)
    summary = read_json(output.filesystem, f"{output.path}/{SUMMARY_NAME}")
    begun = read_json(output.filesystem, f"{output.path}/{WORK_FOLDER}/{_JOB_NAME}")
    theirs = summary.get("job") if summary else begun
    if theirs is not None and theirs != ours:
        differing = sorted(key for key in ours if theirs.get(key) != ours[key])
        raise UserError(
            "the folder holds the table of another job",
            got=", ".join(f"{key} = {ours[key]}" for key in differing),
            wanted=", ".join(f"{key} = {theirs.get(key)}" for key in differing),
            remedy="choose another --output, or start it with its own config to go on",
        )
    return summary


def _enter(job: CaptionJob, plan: CaptionPlan, output: _Output) -> None:
    """Write config.yaml, and what makes the table this job's, before any work."""
    write_text(output.filesystem, f"{output.path}/config.yaml", config_to_yaml(job))
    output.filesystem.create_dir(f"{output.path}/{WORK_FOLDER}", recursive=True)
    identity = json.dumps(_identity(job, plan), indent=1)
    write_text(output.filesystem, f"{output.path}/{WORK_FOLDER}/{_JOB_NAME}", identity)


def _identity(job: CaptionJob, plan: CaptionPlan) -> dict:
    """Return what decides on the content of the table, as JSON has it."""
    config = {name: value for name, value in job.model_dump(mode="json").items() if name not in _MAY_CHANGE}
    facts = {"clips_sha256": plan.ids_sha256, "num_clips": plan.num_clips, "side": plan.captioner.side}
    engine = {"dtype": job.engine.dtype, "options": job.engine.options}
    model = {"weights_sha256": plan.captioner.weights_sha256, "prompt": plan.captioner.prompt}
    return json.loads(json.dumps({**config, "engine": engine, **facts, **model, "model": _model_name(job)}))


def _model_name(job: CaptionJob) -> str:
    return job.model.rstrip("/").rpartition("/")[2] if job.model else "embedded narrator"


def _constants(job: CaptionJob, plan: CaptionPlan) -> dict:
    return {
        "source": _GENERATED,
        "model": _model_name(job),
        "weights_sha256": plan.captioner.weights_sha256,
        "prompt": plan.captioner.prompt,
        "temperature": job.sampling.temperature,
        "top_p": job.sampling.top_p,
        "max_tokens": job.sampling.max_tokens,
    }


def _leave(job: CaptionJob, plan: CaptionPlan, output: _Output, counts: dict) -> None:
    """Write the summary that makes the folder a table, and remove the work folder."""
    num_captions = job.sampling.num_captions
    files = {
        file_name(start // CLIPS_PER_FILE): num_captions * (min(start + CLIPS_PER_FILE, plan.num_clips) - start)
        for start in range(0, plan.num_clips, CLIPS_PER_FILE)
    }
    record = {"version": TABLE_VERSION, "job": _identity(job, plan), "files": files, **counts}
    write_text(output.filesystem, f"{output.path}/{SUMMARY_NAME}", json.dumps(record, indent=1))
    output.filesystem.delete_dir(f"{output.path}/{WORK_FOLDER}")
    logger.info("report card: %s", join_uri(job.output, "report", "index.html"))
