"""The folder of a table of paraphrases: whose it is, whether it is finished, what makes it whole."""

import json
import logging

from mama_ray.captioning.table import SUMMARY_NAME, TABLE_VERSION
from mama_ray.config import config_to_yaml, decisive_values
from mama_ray.errors import UserError
from mama_ray.masking import mask_secrets
from mama_ray.orchestration.captioning.parts import WORK_FOLDER, has_parts
from mama_ray.orchestration.rephrase.job import RephraseJob
from mama_ray.orchestration.rephrase.plan import RephrasePlan
from mama_ray.storage.places import Place, join_uri

logger = logging.getLogger(__name__)

SOURCE, KIND = "rephrased", "rephrased captions"
_JOB_NAME, _CONFIG_NAME = "job.json", "config.yaml"
_REMEDY = "choose another --output, or start it with its own config to go on"


def find_finished(job: RephraseJob, plan: RephrasePlan, output: Place) -> dict | None:
    """Return the summary of a table that is finished; UserError when the folder holds another one, its begin, or the
    output of another job."""
    ours = _identity(job, plan)
    summary = (output / SUMMARY_NAME).read_json()
    begun = (output / f"{WORK_FOLDER}/{_JOB_NAME}").read_json()
    theirs = summary.get("job") if isinstance(summary, dict) else begun
    if theirs is None and summary is None:
        _refuse_others(output)
        return None
    if not isinstance(theirs, dict) or theirs.get("kind") != KIND:
        if summary is None and not has_parts(output):
            return None  # a start that failed before its first captions were committed binds nobody
        raise UserError("the folder holds the output of another job", got=f"{output}", wanted=KIND, remedy=_REMEDY)
    if theirs != ours and (summary or has_parts(output)):
        differing = sorted(key for key in ours if theirs.get(key) != ours[key])
        raise UserError(
            "the folder holds the table of another job",
            got=", ".join(f"{key} = {ours[key]}" for key in differing),
            wanted=", ".join(f"{key} = {theirs.get(key)}" for key in differing),
            remedy=_REMEDY,
        )
    return summary


def enter(job: RephraseJob, plan: RephrasePlan, output: Place) -> None:
    """Write what makes the table this job's, and config.yaml, before any work."""
    (output / f"{WORK_FOLDER}/{_JOB_NAME}").write_whole(json.dumps(_identity(job, plan), indent=1))
    (output / _CONFIG_NAME).write_whole(config_to_yaml(job))


def leave(job: RephraseJob, plan: RephrasePlan, output: Place, files: dict[str, int], counts: dict) -> None:
    """Write the summary that makes the folder a table, and remove the work folder."""
    record = {"version": TABLE_VERSION, "job": _identity(job, plan), "files": files, **counts}
    (output / SUMMARY_NAME).write_whole(json.dumps(record, indent=1))
    (output / WORK_FOLDER).delete_folder()
    logger.info("report card: %s", join_uri(job.output, "report", "index.html"))


def constant_columns(job: RephraseJob, plan: RephrasePlan) -> dict:
    """Return the columns that all rows of the table share."""
    is_sampled = job.decoding.method == "sampling"
    return {
        "source": SOURCE,
        "model": _model_name(job),
        "weights_sha256": plan.rephraser.weights_sha256,
        "prompt": plan.rephraser.prompt,
        "temperature": job.decoding.temperature if is_sampled else None,
        "top_p": job.decoding.top_p if is_sampled else None,
        "max_tokens": job.decoding.max_length,
    }


def _refuse_others(output: Place) -> None:
    """Raise UserError where a config or a summary tells that another job writes here: they would be written over."""
    if output.exists() and any(file.name in (_CONFIG_NAME, SUMMARY_NAME) for file in output.files()):
        raise UserError("the folder holds the output of another job", got=f"{output}", wanted=KIND, remedy=_REMEDY)


def _identity(job: RephraseJob, plan: RephrasePlan) -> dict:
    """Return what decides on the content of the table, as JSON has it."""
    facts = {"texts_sha256": plan.texts_sha256, "num_clips": plan.num_clips, "num_texts": plan.num_texts}
    engine = {"dtype": job.engine.dtype, "options": job.engine.options}
    model = {"weights_sha256": plan.rephraser.weights_sha256, "prompt": plan.rephraser.prompt}
    identity = {"kind": KIND, **decisive_values(job), "engine": engine, **facts, **model, "model": _model_name(job)}
    return json.loads(json.dumps(mask_secrets(identity)))  # an engine may be given a token


def _model_name(job: RephraseJob) -> str:
    return job.model.rstrip("/").rpartition("/")[2]
