"""The output of a narrate job: whose it is, whether it is finished, and what earlier starts saw of its videos."""

import json
from dataclasses import asdict
from typing import Any

from mama_ray.captioning.table import SUMMARY_NAME, TABLE_VERSION, file_name
from mama_ray.config import config_to_yaml, decisive_values
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.errors import UserError
from mama_ray.masking import mask_secrets
from mama_ray.orchestration.captioning.job import EMBEDDED
from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE, WORK_FOLDER, has_parts
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.table_folder import refuse_others
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.narration.planning import Planned
from mama_ray.orchestration.narration.timelines import LINES_NAME, SRT_NAME, VTT_NAME
from mama_ray.orchestration.narration.videos import VideoFacts, facts_from_json
from mama_ray.reporting.document import PAGE_NAME
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import FileFormError, parse_json

VIDEOS_NAME = "videos.jsonl"  # what all of them were looked at with, then a line for each video
_OLD_VIDEOS_NAME = "videos.json"  # of earlier versions: one object
_JOB_NAME, _CONFIG_NAME = "job.json", "config.yaml"
# Files of the folder itself: of another job, or of a person, where the folder is not a narration's.
_WRITTEN = (_CONFIG_NAME, VIDEOS_NAME, _OLD_VIDEOS_NAME, PAGE_NAME, LINES_NAME, SRT_NAME, VTT_NAME)
_GENERATED = "generated"
_OF_VIDEOS = ("clips_sha256", "num_clips")  # which differ with the videos, and with settings of their windows too


def read_known(output: Place, scenes: SceneConfig, decode: DecodeConfig) -> dict[str, VideoFacts]:
    """Return what earlier starts saw of the videos under these settings, by URI: they need not be read again only to be
    hashed. Raises UserError where that is there and cannot be read.
    """
    looked_with, facts = _read_videos(output)
    if looked_with is None and scenes.detector == "none":
        # Records of earlier versions do not say what scenes and reasons were found with; without any it cannot matter.
        return {uri: one for uri, one in facts.items() if not one.scenes and not one.trouble}
    return facts if looked_with == _looked_with(scenes, decode) else {}


def find_finished(job: NarrateJob, plan: CaptionPlan, output: Place) -> dict | None:
    """Return the summary of a narration that is finished; UserError when the folder holds another one, or its begin."""
    ours = _identity(job, plan)
    summary = (output / SUMMARY_NAME).read_json()
    begun = (output / f"{WORK_FOLDER}/{_JOB_NAME}").read_json()
    theirs = summary.get("job") if summary else begun
    if theirs is not None and not isinstance(theirs, dict):
        raise UserError("not the summary of a caption table", got=f"{output / SUMMARY_NAME}", wanted="its job")
    if theirs is None:
        refuse_others(output, _WRITTEN)
    # A start that failed before its first captions were committed binds nobody.
    if theirs is None or theirs == ours or not (summary or has_parts(output)):
        return summary
    differing = sorted(key for key in ours if theirs.get(key) != ours[key])
    settings = [key for key in differing if key not in _OF_VIDEOS]
    is_other_video, shown = not settings, settings or ["videos"]
    ours["videos"], theirs = ", ".join(job.videos) or "the embedded film", {"videos": _names_in(output), **theirs}
    raise UserError(
        "the folder holds the narration of other videos" if is_other_video else "the folder holds another narration",
        got=", ".join(f"{key} = {ours[key]}" for key in shown),
        wanted=", ".join(f"{key} = {theirs.get(key)}" for key in shown),
        remedy="choose another --output, or start it with its own config to go on",
    )


def enter(job: NarrateJob, plan: CaptionPlan, planned: Planned, output: Place) -> None:
    """Write what makes the folder this job's, config.yaml, and what was seen of the videos, before any work."""
    (output / f"{WORK_FOLDER}/{_JOB_NAME}").write_whole(json.dumps(_identity(job, plan), indent=1))
    (output / _CONFIG_NAME).write_whole(config_to_yaml(job))
    looked_with = {"looked_with": _looked_with(job.scenes, job.decode)}
    lines = [looked_with, *(asdict(one) for one in planned.facts)]
    (output / VIDEOS_NAME).write_whole("".join(f"{json.dumps(line)}\n" for line in lines))


def leave(job: NarrateJob, plan: CaptionPlan, output: Place, counts: dict[str, Any]) -> None:
    """Write the summary that makes the folder a caption table, and remove the work folder."""
    num_captions = job.sampling.num_captions
    files = {
        file_name(start // CLIPS_PER_FILE): num_captions * (min(start + CLIPS_PER_FILE, plan.num_clips) - start)
        for start in range(0, plan.num_clips, CLIPS_PER_FILE)
    }
    record = {"version": TABLE_VERSION, "job": _identity(job, plan), "files": files, **counts}
    (output / SUMMARY_NAME).write_whole(json.dumps(record, indent=1))
    (output / WORK_FOLDER).delete_folder()


def constant_columns(job: NarrateJob, plan: CaptionPlan) -> dict[str, Any]:
    """Return the columns that all rows of the table share."""
    return {
        "source": _GENERATED,
        "model": model_name(job),
        "weights_sha256": plan.captioner.weights_sha256,
        "prompt": plan.captioner.prompt,
        "temperature": job.sampling.temperature,
        "top_p": job.sampling.top_p,
        "max_tokens": job.sampling.max_tokens,
    }


def model_name(job: NarrateJob) -> str:
    """Return what the table calls the model."""
    return "embedded narrator" if job.model in (None, EMBEDDED) else job.model.rstrip("/").rpartition("/")[2]


def _identity(job: NarrateJob, plan: CaptionPlan) -> dict[str, Any]:
    """Return what decides on the content of the table, as JSON has it."""
    facts = {"clips_sha256": plan.ids_sha256, "num_clips": plan.num_clips, "side": plan.captioner.side}
    shown = {"kind": plan.show.kind, "num_frames": plan.show.num_frames}
    engine = {"dtype": job.engine.dtype, "options": job.engine.options}
    model = {"weights_sha256": plan.captioner.weights_sha256, "prompt": plan.captioner.prompt}
    identity = {**decisive_values(job), "engine": engine, **facts, "shown_as": shown, **model, "model": model_name(job)}
    return json.loads(json.dumps(mask_secrets(identity)))  # an engine may be given a token


def _read_videos(output: Place) -> tuple[dict[str, Any] | None, dict[str, VideoFacts]]:
    """Return what an earlier start looked at videos with, as far as it is known, and what it saw of each, by URI."""
    try:
        lines = _read_lines(output / VIDEOS_NAME)
        if lines is not None:
            told, *videos = lines or [None]
        else:
            told = _read_record(output / _OLD_VIDEOS_NAME)
            videos = told.get("videos") if isinstance(told, dict) else None
    except FileFormError as error:
        remedy = "delete the file if it is this narration's: the videos are looked at once more"
        raise UserError("what was seen of the videos cannot be read", got=str(error), remedy=remedy) from error
    facts = [facts_from_json(one) for one in videos] if isinstance(videos, list) else []
    looked_with = told.get("looked_with") if isinstance(told, dict) else None
    return looked_with, {one.uri: one for one in facts if one is not None}


def _read_lines(place: Place) -> list[Any] | None:
    """Return what the lines of a file hold; None where there is no file."""
    try:
        return [parse_json(line, place) for line in place.read_bytes().splitlines()]
    except FileNotFoundError:
        return None


def _read_record(place: Place) -> Any:
    """Return what a JSON file of any size holds; None where there is no file."""
    try:
        return parse_json(place.read_bytes(), place)
    except FileNotFoundError:
        return None


def _looked_with(scenes: SceneConfig, decode: DecodeConfig) -> dict[str, Any]:
    """Return what decides on what is seen of a video."""
    return {"scenes": decisive_values(scenes), "decode": decisive_values(decode)}


def _names_in(output: Place) -> str:
    return ", ".join(_read_videos(output)[1]) or "others"
