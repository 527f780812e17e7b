"""The task of a prepare from videos that makes the shards of one chunk of clips."""

import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mama_ray.data.annotations import Annotation, annotation_from_json
from mama_ray.data.clip import Clip
from mama_ray.data.index import index_row
from mama_ray.data.narrations.egoclip import AnnotationsFormat
from mama_ray.data.shard import MAX_SHARD_BYTES, shard_folder
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.settings import DecodeConfig, SceneConfig, TranscodeConfig, WindowConfig
from mama_ray.orchestration.prepare.parts import WORK_FOLDER, Part, part_name, read_part_facts, write_part
from mama_ray.orchestration.prepare.repair import mended
from mama_ray.orchestration.prepare.scenes import can_be_cut, rows_of_scenes
from mama_ray.orchestration.prepare.series import ShardSeries
from mama_ray.orchestration.prepare.sources import MissingVideo, Sources
from mama_ray.storage.places import Place

_SCENES_PER_VIDEO = 32  # about: a task is then as large as one without scenes
_KNOWN = ("clip_id", "video_id", "video", "start_s", "end_s", "split")


@dataclass(frozen=True)
class VideoWork:
    """What the tasks need to know; picklable and small. URIs, because a task may run on another machine."""

    videos: str
    annotations: str | None
    output: str
    clips_per_shard: int
    shard_name: str
    default_split: str | None
    unknown_columns: str
    num_trial_frames: int
    decode: DecodeConfig
    max_shard_bytes: int = MAX_SHARD_BYTES
    split: tuple[str, ...] = ()
    scenes: SceneConfig = field(default_factory=SceneConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    annotations_format: AnnotationsFormat = "table"
    transcode: TranscodeConfig = field(default_factory=TranscodeConfig)
    shard_folders: int = 0

    @property
    def cuts_scenes(self) -> bool:
        """Whether whole videos become a clip for each scene."""
        return self.scenes.detector != "none"

    @property
    def rows_per_chunk(self) -> int:
        """Rows of one task: those of a shard, fewer where a row is a long video that becomes many clips."""
        return max(1, self.clips_per_shard // _SCENES_PER_VIDEO) if self.cuts_scenes else self.clips_per_shard


def write_chunk_shard(work: VideoWork, number: int) -> tuple[int, int]:
    """Make the shard of chunk `number` and its part; return the numbers of clips and of refused clips.

    Raises OSError when the storage of the output or of the videos fails, StorageError when all videos are gone;
    a bad video is a quarantine row.
    """
    folder = Place.of(work.output)
    name = part_name(number)
    facts = read_part_facts(folder, name)
    if facts is None or mended(Place.of(work.videos), facts["quarantine"]):
        spread = shard_folder(number, work.shard_folders)
        if spread:
            (folder / spread.rstrip("/")).make_folder()
        facts = _write_chunk_shard(work, folder, name, f"{spread}{work.shard_name}-{name}")
    return facts["num_clips"], len(facts["quarantine"])


def _write_chunk_shard(work: VideoWork, folder: Place, name: str, shard: str) -> dict[str, Any]:
    part = Part()
    series = ShardSeries(folder, shard, max_bytes=work.max_shard_bytes, max_clips=work.clips_per_shard)
    with tempfile.TemporaryDirectory(prefix="mama_ray-prepare-") as scratch:
        sources = Sources(work.videos, scratch, work.window)
        guard = guard_for(work.decode, work.num_trial_frames, work.window, work.transcode)

        def refuse(row: Annotation, error: Exception) -> None:
            is_missing = isinstance(error, MissingVideo)
            reason = sources.describe_missing(row.video) if is_missing else str(error)
            known = {key: getattr(row, key) for key in _KNOWN}
            part.refuse(reason, **known, **sources.file_facts(row.video))

        with series:
            for line in _read_lines(folder / f"{WORK_FOLDER}/chunks/{name}.jsonl"):
                whole = annotation_from_json(line)
                try:
                    rows = _rows_to_cut(whole, sources, guard, work)
                except (DecodeError, MissingVideo) as error:
                    refuse(whole, error)
                    continue
                if rows != [whole]:
                    part.cut.append(whole.clip_id)
                for row in rows:
                    try:
                        clip, video, extension, facts = _read_clip(row, sources, guard, f"{scratch}/cut.mp4")
                    except (DecodeError, MissingVideo) as error:
                        refuse(row, error)
                        continue
                    shard, location = series.add(clip, video, extension)  # its errors are the storage's
                    path = {"video": row.video} if work.annotations is None else {}
                    part.rows.append(index_row(clip, location, shard, facts | path))
                    part.clamped["end"] += facts["is_clamped"]
                    if facts.get("num_missing"):
                        part.clamped["frames"] += 1
    part.shards = series.finish()
    write_part(folder, name, part)
    return {"num_clips": len(part.rows), "quarantine": part.quarantine}


def _rows_to_cut(row: Annotation, sources: Sources, guard: VideoGuard, work: VideoWork) -> list[Annotation]:
    """Return the row, or one for each scene of its video where that was asked for."""
    if not (work.cuts_scenes and can_be_cut(row)):
        return [row]
    return rows_of_scenes(row, guard.find_scenes(sources.local_path(row), work.scenes))


def _read_clip(
    annotation: Annotation, sources: Sources, guard: VideoGuard, cut_to: str
) -> tuple[Clip, bytes, str, dict[str, Any]]:
    """Return the clip, its video, the extension, and what was seen of it."""
    source = sources.local_path(annotation)
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
        facts.get("source_sha256"),
    )
    return clip, Path(cut_to if facts["is_cut"] else source).read_bytes(), extension, facts


@lru_cache(maxsize=1)
def guard_for(
    config: DecodeConfig,
    num_trial_frames: int,
    window: WindowConfig | None = None,
    transcode: TranscodeConfig | None = None,
) -> VideoGuard:
    """The guard of this worker process: kept from task to task, because its child takes half a second to start."""
    return VideoGuard(config, num_trial_frames=num_trial_frames, window=window, transcode=transcode)


def _read_lines(place: Place) -> list[bytes]:
    return place.read_bytes().splitlines()
