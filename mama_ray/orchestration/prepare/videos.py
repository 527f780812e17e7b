"""Two tasks of a prepare from videos: check the annotations into chunks, and make the shards of one chunk."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mama_ray.data.annotations import Annotation, annotation_from_json, parse_annotation, read_annotations
from mama_ray.data.clip import Clip
from mama_ray.data.index import index_row
from mama_ray.data.shard import MAX_SHARD_BYTES
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.prepare.parts import WORK_FOLDER, Part, part_name, read_part_facts, write_part
from mama_ray.orchestration.prepare.series import ShardSeries
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

_COPY_BYTES = 8 << 20
# Refused rows per part: bounds the memory of a table whose rows are all bad.
_REFUSED_PER_PART = 10_000
_KNOWN = ("clip_id", "video_id", "video", "start_s", "end_s")


@dataclass(frozen=True)
class VideoWork:
    """What the tasks need to know; picklable and small. URIs, because a task may run on another machine."""

    videos: str
    annotations: str
    output: str
    clips_per_shard: int
    shard_name: str
    default_split: str | None
    unknown_columns: str
    num_trial_frames: int
    decode: DecodeConfig
    max_shard_bytes: int = MAX_SHARD_BYTES


def write_chunks(work: VideoWork) -> int:
    """Check the annotation table row by row and write one file of rows per shard to come; return how many.

    Bad rows become quarantine parts. Memory is one chunk and 8 bytes (in a Python set: about 70) per clip_id.
    """
    folder = Place.of(work.output)
    chunks = folder / f"{WORK_FOLDER}/chunks"
    finished = (chunks / "finished.json").read_json()
    if finished is not None:
        return finished["num_chunks"]
    num_chunks, num_refused_parts = 0, 0
    good: list[str] = []
    refused = Part()
    for line, reason, known in _checked_rows(work):
        if line is None:
            refused.refuse(reason, **known)
        else:
            good.append(line)
        if len(good) == work.clips_per_shard:
            _write_lines(chunks / f"{part_name(num_chunks)}.jsonl", good)
            num_chunks, good = num_chunks + 1, []
        if len(refused.quarantine) == _REFUSED_PER_PART:
            write_part(folder, f"rows-{num_refused_parts:06d}", refused)
            num_refused_parts, refused = num_refused_parts + 1, Part()
    if good:
        _write_lines(chunks / f"{part_name(num_chunks)}.jsonl", good)
        num_chunks += 1
    if refused.quarantine:
        write_part(folder, f"rows-{num_refused_parts:06d}", refused)
    _write_lines(chunks / "finished.json", [json.dumps({"num_chunks": num_chunks})])
    return num_chunks


def write_chunk_shard(work: VideoWork, number: int) -> tuple[int, int]:
    """Make the shard of chunk `number` and its part; return the numbers of clips and of refused clips.

    Raises OSError when the storage of the output or of the videos fails; a bad video is a quarantine row.
    """
    folder = Place.of(work.output)
    name = part_name(number)
    facts = read_part_facts(folder, name)
    if facts is None:
        facts = _write_chunk_shard(work, folder, name)
    return facts["num_clips"], len(facts["quarantine"])


def _write_chunk_shard(work: VideoWork, folder: Place, name: str) -> dict[str, Any]:
    part = Part()
    series = ShardSeries(folder, f"{work.shard_name}-{name}", max_bytes=work.max_shard_bytes)
    with tempfile.TemporaryDirectory(prefix="mama_ray-prepare-") as scratch:
        sources = _Sources(work.videos, scratch)
        guard = guard_for(work.decode, work.num_trial_frames)
        with series:
            for line in _read_lines(folder / f"{WORK_FOLDER}/chunks/{name}.jsonl"):
                annotation = annotation_from_json(line)
                try:
                    clip, video, extension, facts = _read_clip(annotation, sources, guard, f"{scratch}/cut.mp4")
                except (DecodeError, FileNotFoundError) as error:
                    known = {key: getattr(annotation, key) for key in _KNOWN}
                    part.refuse(str(error) if isinstance(error, DecodeError) else "no such video file", **known)
                    continue
                shard, location = series.add(clip, video, extension)  # its errors are the storage's, not the clip's
                part.rows.append(index_row(clip, location, shard, facts))
    part.shards = series.finish()
    write_part(folder, name, part)
    return {"num_clips": len(part.rows), "quarantine": part.quarantine}


def _read_clip(
    annotation: Annotation, sources: "_Sources", guard: VideoGuard, cut_to: str
) -> tuple[Clip, bytes, str, dict[str, Any]]:
    """Return the clip, its video, the extension, and what was seen of it."""
    source = sources.local_path(annotation.video)
    facts = guard.inspect(source, annotation.start_s, annotation.end_s, cut_to)
    extension = "mp4" if facts["is_cut"] else annotation.video.rpartition(".")[2].lower()
    clip = Clip(
        annotation.clip_id,
        annotation.video_id,
        annotation.start_s,
        facts["end_s"],
        annotation.captions,
        annotation.topic,
        annotation.split,
        annotation.questions,
        annotation.truth,
    )
    return clip, Path(cut_to if facts["is_cut"] else source).read_bytes(), extension, facts


@lru_cache(maxsize=1)
def guard_for(config: DecodeConfig, num_trial_frames: int) -> VideoGuard:
    """The guard of this worker process: kept from task to task, because its child takes half a second to start."""
    return VideoGuard(config, num_trial_frames=num_trial_frames)


class _Sources:
    """Gives the videos as local files; a remote one is downloaded once for all its clips in a row."""

    def __init__(self, videos: str, scratch: str) -> None:
        self._folder = Place.of(videos)
        self._scratch = scratch
        self._video = ""

    def local_path(self, video: str) -> str:
        """Raises FileNotFoundError when there is no such file."""
        place = self._folder / video
        if place.is_local:
            if not Path(place.path).is_file():
                raise FileNotFoundError(place.path)
            return place.path
        target = f"{self._scratch}/source.{video.rpartition('.')[2]}"
        if video != self._video:
            self._video = ""
            with_retries(lambda: _download(place, target))
            self._video = video
        return target


def _download(place: Place, target: str) -> None:
    with place.open_stream() as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)


def _checked_rows(work: VideoWork) -> Iterator[tuple[str | None, str, dict]]:
    """Yield (line of the annotation, "", {}) for a good row and (None, reason, what is known) for a bad one."""
    place = Place.of(work.annotations)
    seen: set[bytes] = set()
    for number, row in read_annotations(place, unknown_columns=work.unknown_columns):
        known = {key: row[key] for key in ("clip_id", "video_id", "video") if isinstance(row.get(key), str)}
        try:
            annotation = parse_annotation(row, default_split=work.default_split)
            line = annotation.to_json()
            line.encode()  # a lone surrogate would fail later, in another task
        except ValueError as error:
            yield None, f"{error} (row {number})", known
            continue
        digest = hashlib.blake2b(annotation.clip_id.encode(), digest_size=8).digest()
        if digest in seen:
            yield None, f"duplicate clip_id: got {annotation.clip_id} again (row {number})", known
        else:
            seen.add(digest)
            yield line, "", {}


def _write_lines(place: Place, lines: list[str]) -> None:
    place.write_whole("\n".join(lines) + "\n")


def _read_lines(place: Place) -> list[bytes]:
    return place.read_bytes().splitlines()
