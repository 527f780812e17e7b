"""The folder of a caption table: whose it is, whether it is finished, what makes it whole."""

import json
import logging

from mama_ray.captioning.pictures.settings import GRID
from mama_ray.captioning.table import SUMMARY_NAME, TABLE_VERSION, file_name
from mama_ray.config import config_to_yaml, decisive_values
from mama_ray.errors import UserError
from mama_ray.masking import mask_secrets
from mama_ray.orchestration.captioning.job import EMBEDDED, CaptionJob
from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE, WORK_FOLDER, has_parts
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.storage.files_of_others import refuse_others
from mama_ray.storage.places import Place, join_uri

logger = logging.getLogger(__name__)

_GENERATED = "generated"
_JOB_NAME, _CONFIG_NAME = "job.json", "config.yaml"
_REMEDY = "choose another --output, or start it with its own config to go on"


def find_finished(job: CaptionJob, plan: CaptionPlan, output: Place) -> dict | None:
    """Return the summary of a table that is finished; UserError when the folder holds another one, or its begin."""
    ours = _identity(job, plan)
    summary = (output / SUMMARY_NAME).read_json()
    begun = (output / f"{WORK_FOLDER}/{_JOB_NAME}").read_json()
    theirs = summary.get("job") if summary else begun
    if theirs is not None and not isinstance(theirs, dict):
        raise UserError("not the summary of a caption table", got=f"{output / SUMMARY_NAME}", wanted="its job")
    # A start that failed before its first captions were committed binds nobody.
    if theirs is not None and theirs != ours and (summary or has_parts(output)):
        differing = sorted(key for key in ours | theirs if theirs.get(key) != ours.get(key))
        raise UserError(
            "the folder holds the table of another job",
            got=", ".join(f"{key} = {ours.get(key)}" for key in differing),
            wanted=", ".join(f"{key} = {theirs.get(key)}" for key in differing),
            remedy=_REMEDY,
        )
    if theirs is None and summary is None:
        refuse_others(output, [_CONFIG_NAME])
    return summary


def enter(job: CaptionJob, plan: CaptionPlan, output: Place) -> None:
    """Write what makes the table this job's, and config.yaml, before any work."""
    identity = json.dumps(_identity(job, plan), indent=1)
    (output / f"{WORK_FOLDER}/{_JOB_NAME}").write_whole(identity)
    (output / _CONFIG_NAME).write_whole(config_to_yaml(job))


def leave(job: CaptionJob, plan: CaptionPlan, output: Place, counts: dict) -> None:
    """Write the summary that makes the folder a table, and remove the work folder."""
    num_captions = job.sampling.num_captions
    files = {
        file_name(start // CLIPS_PER_FILE): num_captions * (min(start + CLIPS_PER_FILE, plan.num_clips) - start)
        for start in range(0, plan.num_clips, CLIPS_PER_FILE)
    }
    record = {"version": TABLE_VERSION, "job": _identity(job, plan), "files": files, **counts}
    (output / SUMMARY_NAME).write_whole(json.dumps(record, indent=1))
    (output / WORK_FOLDER).delete_folder()
    logger.info("report card: %s", join_uri(job.output, "report", "index.html"))


def constant_columns(job: CaptionJob, plan: CaptionPlan) -> dict:
    """Return the columns that all rows of the table share."""
    return {
        "source": _GENERATED,
        "model": _model_name(job),
        "weights_sha256": plan.captioner.weights_sha256,
        "prompt": plan.captioner.prompt,
        "temperature": job.sampling.temperature,
        "top_p": job.sampling.top_p,
        "max_tokens": job.sampling.max_tokens,
    }


def _identity(job: CaptionJob, plan: CaptionPlan) -> dict:
    """Return what decides on the content of the table, as JSON has it."""
    facts = {"clips_sha256": plan.ids_sha256, "num_clips": plan.num_clips, "side": plan.captioner.side}
    if plan.show.kind != GRID:  # a grid is all that earlier versions showed, and they did not say so
        facts["shown_as"] = {"kind": plan.show.kind, "num_frames": plan.show.num_frames}
    engine = {"dtype": job.engine.dtype, "options": job.engine.options}
    model = {"weights_sha256": plan.captioner.weights_sha256, "prompt": plan.captioner.prompt}
    identity = {**decisive_values(job), "engine": engine, **facts, **model, "model": _model_name(job)}
    return json.loads(json.dumps(mask_secrets(identity)))  # an engine may be given a token


def _model_name(job: CaptionJob) -> str:
    return "embedded narrator" if job.model in (None, EMBEDDED) else job.model.rstrip("/").rpartition("/")[2]
