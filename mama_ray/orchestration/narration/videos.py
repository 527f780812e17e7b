"""The videos of a narrate job: found, fetched to the node of a task where they are remote, and looked at once.

A video that cannot be used is a fact about it, and becomes a row with the reason; a storage that fails ends the job.
"""

import hashlib
import logging
import os
import posixpath
import shutil
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

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
from mama_ray.orchestration.prepare.listing import list_files
from mama_ray.orchestration.prepare.near_names import nearest_name
from mama_ray.storage.places import Place, join_uri, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.small_files import MAX_RECORD_BYTES

logger = logging.getLogger(__name__)

_TASK_CPUS = 0.5
_COPY_BYTES = 8 << 20
_ANSWERS_WITHIN_S = 30
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
        return VideoFacts(**asdict(found), trouble=reason_of(error))
    known = {"duration_s": facts["duration_s"], "num_frames": facts["num_frames"], "scenes": tuple(cuts)}
    return VideoFacts(**asdict(found), sha256=digest, **known)


def local_path(uri: str, num_bytes: int, modified_ns: int | None, decode: DecodeConfig) -> str:
    """Return a local path of a video: its own, or that of a copy, of which this process keeps the latest.

    Raises UserError where the file is another one than when the job began, FileNotFoundError where it is gone, and
    DecodeError where it is larger than `decode` allows.
    """
    place = Place.of(uri)
    there = with_retries(place.info)
    if not there.is_file:
        raise UserError("a video is gone", got=uri, wanted="the file that the job began with")
    if (there.size, there.mtime_ns) != (num_bytes, modified_ns):
        remedy = "start the job again with another --output"
        raise UserError("a video was changed while it was narrated", got=uri, remedy=remedy)
    if num_bytes > decode.max_bytes:
        raise DecodeError("the file is too large", got=f"{num_bytes} bytes", limit=f"{decode.max_bytes} bytes")
    if place.is_local:
        return place.path
    return _COPY.path_of(place, (uri, num_bytes, modified_ns))


class _LatestCopy:
    """The remote video that this process read last, in a file without a name: it goes when the process does, however
    that ends.
    """

    def __init__(self) -> None:
        self._identity: tuple | None = None
        self._file: IO[bytes] | None = None

    def path_of(self, place: Place, identity: tuple) -> str:
        if self._file is None or self._identity != identity:
            if self._file is not None:
                self._file.close()
            self._identity, self._file = None, tempfile.TemporaryFile(prefix="mama_ray-narrate-")  # noqa: SIM115 - kept
            with_retries(lambda: self._fetch(place))
            self._identity = identity
        # The child that decodes opens it anew, under this process's own number.
        return f"/proc/{os.getpid()}/fd/{self._file.fileno()}"

    def _fetch(self, place: Place) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        with place.open_stream() as stream:
            shutil.copyfileobj(stream, self._file, _COPY_BYTES)
        self._file.flush()


_COPY = _LatestCopy()
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
    there = with_retries(place.info)
    if there.type == pafs.FileType.Directory:
        return _videos_in(place)
    if not there.is_file and entry.lower().startswith(("http://", "https://")):
        _require_answer(entry)
    if not there.is_file:
        near = with_retries(lambda: nearest_name(place.parent, place.name))
        raise UserError("no such video", got=entry, remedy=None if near is None else f"did you mean {near}?")
    if entry.lower().endswith(_LIST_EXTENSION):
        return [video for line in _lines_of(place) for video in _videos_of(line)]
    return [FoundVideo(place.uri, _stem(place.name), there.size, there.mtime_ns)]


def _require_answer(address: str) -> None:
    """Raise UserError where a web server does not say that it has no such file: the file system takes all for that."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_ANSWERS_WITHIN_S).close()
    except urllib.error.HTTPError as error:
        if error.code not in (404, 410):
            raise UserError("the server of a video refuses it", got=f"{address} (status {error.code})") from error
    except OSError as error:  # also URLError, which tells why
        why = getattr(error, "reason", error)
        raise UserError("the server of a video cannot be reached", got=f"{address} ({why})") from error


def _videos_in(folder: Place) -> list[FoundVideo]:
    """Return the videos of a folder. One whose name is no UTF-8 can be in no table, so it is told."""
    files = [file for file in with_retries(lambda: list_files(folder)) if _is_video(file.name)]
    odd = [ascii(file.name) for file in files if not is_text(file.name)]
    if odd:
        what = f"{len(odd)} videos have names that are no UTF-8 and are left out, such as %s: rename them"
        logger.warning(what, odd[0])
    return [
        FoundVideo(join_uri(folder.uri, file.name), _stem(file.name), file.num_bytes, file.modified_ns)
        for file in files
        if is_text(file.name)
    ]


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


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
