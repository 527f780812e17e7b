"""From videos to the rows of windows that the captioning pipeline works on: one row per window, videos one after the
other; a video that cannot be used is one row with the reason.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.narrations.human_clips import HumanTimes, read_human_clips
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.data.video.windows import Times, WindowPlanConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.narration.videos import FoundVideo, VideoFacts, list_videos, look_at_video_in_task
from mama_ray.orchestration.narration.window_rows import WINDOW_SCHEMA, Layout, WindowRows
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

_TASK_CPUS = 0.5
_LOOKS_AT_ONCE = 64  # whose results the driver waits for; the cluster has as many of them at work as it can


@dataclass(frozen=True)
class PlannedVideo:
    """A video, and which rows of the table are its own."""

    uri: str
    video_id: str
    duration_s: float
    num_frames: int
    start_row: int
    num_rows: int
    trouble: str | None


@dataclass(frozen=True)
class Planned:
    """The windows of all videos; `table` refers to rows of WINDOW_SCHEMA: a table, or rows that are served."""

    table: ray.ObjectRef
    num_windows: int
    ids_sha256: str
    videos: tuple[PlannedVideo, ...]
    facts: tuple[VideoFacts, ...]


def plan_narration(
    entries: Sequence[str],
    windows: WindowPlanConfig,
    scenes: SceneConfig,
    decode: DecodeConfig,
    *,
    human: str | None,
    human_times: HumanTimes,
    known: dict[str, VideoFacts],
) -> Planned:
    """Look at the videos and lay the windows. `known` has what earlier starts saw of videos, by URI.

    Raises UserError where no video can be narrated, where there is no window, and for too many of them.
    """
    found = result_of(list_videos.remote(list(entries)))
    facts = _look_at(found, scenes, decode, known)
    laying = _lay_windows.options(num_returns=2)
    table, told = laying.remote(facts, windows, human, human_times, row_server.MAX_HELD_ROWS)
    num_windows, ids_sha256, videos = result_of(told, table)
    table = row_server.shared_rows(table, num_windows, WINDOW_SCHEMA.names)
    for video in videos:
        if video.trouble:
            logger.warning("%s cannot be narrated: %s", video.uri, video.trouble)
    return Planned(table, num_windows, ids_sha256, videos, tuple(facts))


def _look_at(
    found: Sequence[FoundVideo], scenes: SceneConfig, decode: DecodeConfig, known: dict[str, VideoFacts]
) -> list[VideoFacts]:
    facts: dict[str, VideoFacts] = {}
    for video in found:
        seen = known.get(video.uri)
        is_same = seen is not None and (seen.num_bytes, seen.modified_ns) == (video.num_bytes, video.modified_ns)
        if seen is not None and is_same and video.modified_ns is not None:
            facts[video.uri] = replace(seen, video_id=video.video_id)
    new = [video for video in found if video.uri not in facts]
    for start in range(0, len(new), _LOOKS_AT_ONCE):
        looks = [look_at_video_in_task.remote(video, decode, scenes) for video in new[start : start + _LOOKS_AT_ONCE]]
        facts |= {seen.uri: seen for seen in map(result_of, looks)}
        logger.info("looked at %d of %d videos", min(start + _LOOKS_AT_ONCE, len(new)), len(new))
    seen = [facts[video.uri] for video in found]
    if all(one.trouble for one in seen):
        got = f"{seen[0].uri} ({seen[0].trouble})"
        raise UserError("no video can be narrated", got=got if len(seen) == 1 else f"{len(seen)} such as {got}")
    return seen


@ray.remote(num_cpus=_TASK_CPUS, max_retries=2, name="narrate: lay windows")
def _lay_windows(
    facts: Sequence[VideoFacts], config: WindowPlanConfig, human: str | None, human_times: HumanTimes, max_held: int
) -> tuple[pa.Table | WindowRows, tuple[int, str, tuple[PlannedVideo, ...]]]:
    return lay_windows(facts, config, human, human_times, max_held)


def lay_windows(
    facts: Sequence[VideoFacts],
    config: WindowPlanConfig,
    human: str | None,
    human_times: HumanTimes,
    max_held: int = row_server.MAX_HELD_ROWS,
) -> tuple[pa.Table | WindowRows, tuple[int, str, tuple[PlannedVideo, ...]]]:
    """Return the rows of all windows, and their number, a hash of them, and which rows are whose.

    They are a table where they are at most `max_held`.
    """
    clips: dict[str, list[Times]] = {}
    if human is not None:
        with storage_errors(human):
            names = [video.video_id for video in facts if not video.trouble]
            clips = read_human_clips(Place.of(human), names, human_times, config.alpha_s)
    layout = Layout(facts, clips, config)
    tables, videos, num_rows, digest = [WINDOW_SCHEMA.empty_table()], [], 0, hashlib.sha256()
    for number, video in enumerate(facts):
        table = layout.table(number)
        for name in ("clip_id", "sha256"):
            digest.update("\n".join([*table[name].to_pylist(), ""]).encode())
        known = (video.uri, video.video_id, video.duration_s, video.num_frames, num_rows, len(table), video.trouble)
        videos.append(PlannedVideo(*known))
        num_rows += len(table)
        if num_rows <= max_held:
            tables.append(table)
        else:
            tables.clear()
    if not num_rows:
        remedy = "all of the videos is covered" if config.cover == "uncovered" else None
        raise UserError("no windows to narrate", got=f"windows.cover {config.cover}", remedy=remedy)
    if num_rows <= max_held:
        rows = pa.concat_tables(tables).combine_chunks()
    else:
        rows = WindowRows(layout, np.array([video.num_rows for video in videos], np.int64))
    return rows, (num_rows, digest.hexdigest(), tuple(videos))
