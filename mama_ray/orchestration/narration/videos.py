"""The videos of a narrate job: found, and looked at once.

A video that cannot be used is a fact about it, and becomes a row with the reason; a storage that fails ends the job.
"""

import hashlib
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow.fs as pafs
import ray
from pydantic import TypeAdapter, ValidationError

from mama_ray.data.clip import VIDEO_EXTENSIONS, is_text
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guarded import guard_of
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.source import reason_of
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.narration.local_videos import info_of, local_path, require_still_there
from mama_ray.orchestration.prepare.listing import list_files
from mama_ray.orchestration.prepare.near_names import nearest_name
from mama_ray.storage.places import Place, join_uri, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.small_files import MAX_RECORD_BYTES

logger = logging.getLogger(__name__)

_TASK_CPUS = 0.5
_LIST_EXTENSION = ".txt"


@dataclass(frozen=True)
class FoundVideo:
    """A video file as it is now; `video_id` names it among the others, and goes into the ids of its windows."""

    uri: str
    video_id: str
    num_bytes: int
    modified_ns: int | None


@dataclass(frozen=True)
class VideoFacts:
    """What a look at a video told; `trouble` is why it cannot be narrated."""

    uri: str
    video_id: str
    num_bytes: int
    modified_ns: int | None
    sha256: str = ""
    duration_s: float = 0.0
    num_frames: int = 0
    scenes: tuple[tuple[float, float | None], ...] = ()
    trouble: str | None = None


@ray.remote(num_cpus=_TASK_CPUS, max_retries=2, name="narrate: list videos")
def list_videos(entries: Sequence[str]) -> list[FoundVideo]:
    """Return `find_videos`, in a task."""
    start_worker_logging()
    return find_videos(entries)


def find_videos(entries: Sequence[str]) -> list[FoundVideo]:
    """Return the videos that are named, by folders and lists too, each once, in that order.

    Raises UserError for what is not there, and where there is no video at all.
    """
    found: dict[str, FoundVideo] = {}
    for entry in entries:
        with storage_errors(entry):
            for video in _videos_of(entry):
                found.setdefault(_whereabouts(video.uri), video)
    if not found:
        extensions = ", ".join(VIDEO_EXTENSIONS)
        raise UserError("no videos", got=", ".join(entries), wanted=f"files ending in {extensions}")
    counts = Counter(video.video_id for video in found.values())
    return [video if counts[video.video_id] == 1 else _unlike(video) for video in found.values()]


@ray.remote(num_cpus=_TASK_CPUS, max_retries=2, name="narrate: look at a video")
def look_at_video_in_task(found: FoundVideo, decode: DecodeConfig, scenes: SceneConfig) -> VideoFacts:
    """Return `look_at_video`."""
    start_worker_logging()
    with storage_errors(found.uri):
        return look_at_video(found, decode, scenes)


def look_at_video(found: FoundVideo, decode: DecodeConfig, scenes: SceneConfig) -> VideoFacts:
    """Read a video once: its hash, its length and, where they are asked for, its scenes.

    Raises UserError, OSError where the storage fails.
    """
    try:
        path = local_path(found.uri, found.num_bytes, found.modified_ns, decode)
        digest = _hash_file(path)
        with guard_of(decode) as guard:
            facts = guard.open_windows(path, [], {"num_frames": 1, "rule": "spread", "size": {"short_side": 16}})
            cuts = guard.find_scenes(path, scenes) if scenes.detector != "none" else []
    except DecodeError as error:
        require_still_there(found.uri, found.num_bytes, found.modified_ns)
        return VideoFacts(**asdict(found), trouble=reason_of(error))
    known = {"duration_s": facts["duration_s"], "num_frames": facts["num_frames"], "scenes": tuple(cuts)}
    return VideoFacts(**asdict(found), sha256=digest, **known)


_FACTS = TypeAdapter(VideoFacts)


def _whereabouts(uri: str) -> str:
    """Return what is the same for all ways to the folder of a file; a link to a video stays a name of its own."""
    if "://" in uri:
        return uri
    folder, name = os.path.split(uri)
    return os.path.join(os.path.realpath(folder), name)


def _videos_of(entry: str) -> list[FoundVideo]:
    """Return the videos that one entry names, called by their paths without the extension."""
    place = Place.of(entry)
    there = info_of(place)
    if there.type == pafs.FileType.Directory:
        return _videos_in(place)
    if not there.is_file:
        near = with_retries(lambda: nearest_name(place.parent, place.name))
        raise UserError("no such video", got=entry, remedy=None if near is None else f"did you mean {near}?")
    if entry.lower().endswith(_LIST_EXTENSION):
        return [video for line in _lines_of(place) for video in _videos_of(line)]
    return [_found(place.uri, place.name, there.size, there.mtime_ns)]


def _found(uri: str, name: str, num_bytes: int | None, modified_ns: int | None) -> FoundVideo:
    if num_bytes is None:  # of a server that makes its answers as it gives them
        remedy = "fetch the video to a disk, and name it there"
        raise UserError("the server of a video does not tell its length", got=uri, remedy=remedy)
    return FoundVideo(uri, posixpath.splitext(name)[0], num_bytes, modified_ns)


def _videos_in(folder: Place) -> list[FoundVideo]:
    """Return the videos of a folder. One whose name is no UTF-8 can be in no table, so it is told."""
    files = [file for file in with_retries(lambda: list_files(folder)) if _is_video(file.name)]
    odd = [ascii(file.name) for file in files if not is_text(file.name)]
    if odd:
        what = f"{len(odd)} videos have names that are no UTF-8 and are left out, such as %s: rename them"
        logger.warning(what, odd[0])
    return [
        _found(join_uri(folder.uri, file.name), file.name, file.num_bytes, file.modified_ns)
        for file in files
        if is_text(file.name)
    ]


def _lines_of(place: Place) -> list[str]:
    try:
        lines = [line.strip() for line in place.read_text(MAX_RECORD_BYTES).splitlines()]
    except UnicodeDecodeError as error:
        raise UserError("not a list of videos", got=f"{place}", wanted="a path or URI a line, in UTF-8") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        if line.lower().endswith(_LIST_EXTENSION):
            raise UserError("a list of videos names another list", got=f"{place}: {line}", wanted="videos and folders")
    return [line if "://" in line or line.startswith("/") else join_uri(place.parent.uri, line) for line in lines]


def _is_video(name: str) -> bool:
    return name.rpartition(".")[2].lower() in VIDEO_EXTENSIONS


def _unlike(video: FoundVideo) -> FoundVideo:
    """Return a video whose name another one has too with a part of its URI's hash in the name."""
    return replace(video, video_id=f"{video.video_id}-{hashlib.sha256(video.uri.encode()).hexdigest()[:8]}")


def _hash_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_from_json(record: Any) -> VideoFacts | None:
    """Return what was told of a video earlier, as `asdict` gives it; None for a record that is none."""
    try:
        return _FACTS.validate_python(record)
    except ValidationError:
        return None
