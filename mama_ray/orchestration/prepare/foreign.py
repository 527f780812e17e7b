"""Indexing shards that something else wrote, in place: one task walks one tar, nothing is rewritten.

A video may have any known extension. Its captions are the `.txt` member and, of the `.json` member, the field
caption, text or captions; a `.json` member that this project wrote is read whole. The tar itself is checked on the
way.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from mama_ray.data.annotations import parse_captions
from mama_ray.data.clip import SPLITS, Caption, CaptionSource, Clip, check_clip_id, clip_from_json, make_clip_id
from mama_ray.data.index import index_row
from mama_ray.data.shard import Sample, ShardError, scan_shard
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.parts import WORK_FOLDER, Part, part_name, read_part_facts, write_part
from mama_ray.orchestration.prepare.videos import guard_for
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

_CAPTION_FIELDS = ("caption", "text", "captions")
_READ_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True)
class ShardWork:
    """What the tasks need to know; picklable and small."""

    shards: str
    default_split: str | None
    source: CaptionSource
    num_trial_frames: int
    decode: DecodeConfig


def list_shards(shards: str) -> list[tuple[str, int]]:
    """Return (path relative to the folder, bytes) of every .tar below the folder, sorted. Raises UserError for none."""
    folder = Place.of(shards)
    try:
        infos = folder.filesystem.get_file_info(pafs.FileSelector(folder.path, recursive=True))
    except FileNotFoundError as error:
        raise UserError("no such folder of shards", got=shards) from error
    found = [
        (info.path[len(folder.path) :].lstrip("/"), info.size)
        for info in infos
        if info.type == pafs.FileType.File and info.extension.lower() == "tar" and f"/{WORK_FOLDER}/" not in info.path
    ]
    if not found:
        raise UserError("the folder has no shards", got=shards, wanted="files ending in .tar (not compressed)")
    return sorted(found)


def index_shard(work: ShardWork, number: int, shard: str) -> tuple[int, int]:
    """Walk one tar and write the part of task `number`; return the numbers of clips and of refused clips.

    Raises OSError when the storage fails again and again.
    """
    folder = Place.of(work.shards)
    name = part_name(number)
    facts = read_part_facts(folder, name)
    if facts is None:
        part = with_retries(lambda: _walk(work, folder, shard))
        write_part(folder, name, part)
        return len(part.rows), len(part.quarantine)
    return facts["num_clips"], len(facts["quarantine"])


def _walk(work: ShardWork, folder: Place, shard: str) -> Part:
    place = folder / shard
    part, num_bytes = Part(), place.info().size
    guard = guard_for(work.decode, work.num_trial_frames)
    with tempfile.TemporaryDirectory(prefix="mama_ray-prepare-") as scratch:
        try:
            with place.filesystem.open_input_stream(place.path, buffer_size=_READ_BUFFER_BYTES) as stream:
                for sample in scan_shard(stream, max_video_bytes=work.decode.max_bytes):
                    if sample.video is None and not sample.error:
                        continue  # a sample of images or of texts alone
                    try:
                        part.rows.append(_row(work, sample, guard, shard, scratch))
                    except ValueError as error:
                        part.refuse(str(error), clip_id=clip_id_of(sample.key), video=f"{shard}/{sample.key}")
        except ShardError as error:
            # What came before the damage is not taken either: half a shard would pass for a whole one.
            part = Part(damage=f"{shard} ({error})")
            part.refuse(str(error), video=shard)
    if part.rows:
        part.shards[shard] = {"num_bytes": num_bytes, "num_clips": len(part.rows)}
    return part


def _row(work: ShardWork, sample: Sample, guard: Any, shard: str, scratch: str) -> dict[str, Any]:
    """Build the index row of a sample. Raises ValueError (DecodeError included) with the reason."""
    if sample.error or sample.video is None:
        raise DecodeError(sample.error or "the sample has no video")
    video = Path(scratch) / f"video.{sample.video.extension}"
    video.write_bytes(sample.video_bytes)
    facts = guard.inspect(str(video), 0.0, None, f"{scratch}/cut.mp4")
    clip = clip_of(sample, facts["duration_s"], default_split=work.default_split, source=work.source)
    return index_row(clip, sample.video, shard, facts)


def clip_id_of(key: str) -> str:
    """A key that is a legal clip_id stays; of any other a deterministic one is made."""
    name = key.rpartition("/")[2]
    try:
        check_clip_id(name)
    except ValueError:
        return make_clip_id(key, 0, None)
    return name if name == key.removeprefix("./") else make_clip_id(key, 0, None)


def clip_of(sample: Sample, duration_s: float, *, default_split: str | None, source: CaptionSource) -> Clip:
    """Build the clip of a foreign sample. Raises ValueError when its annotations cannot be read."""
    fields = {}
    if "json" in sample.texts:
        try:
            return clip_from_json(sample.texts["json"])  # of our own making: nothing to guess
        except ValueError:
            fields = _json_fields(sample.texts["json"])
    captions = []
    if "txt" in sample.texts:
        try:
            captions.append(Caption(sample.texts["txt"].decode().strip(), source))
        except UnicodeDecodeError as error:
            raise ValueError("annotations: the .txt member is not UTF-8") from error
    for name in _CAPTION_FIELDS:
        value = fields.get(name)
        if value:
            captions += parse_captions(None, value if isinstance(value, list) else [value], source)
    split, video_id = fields.get("split"), fields.get("video_id")
    return Clip(
        clip_id=clip_id_of(sample.key),
        video_id=video_id if isinstance(video_id, str) and video_id else sample.key,
        start_s=0.0,
        end_s=duration_s,
        captions=tuple(dict.fromkeys(captions)),
        topic=fields["topic"] if isinstance(fields.get("topic"), str) else None,
        split=split if split in SPLITS else default_split,
    )


def _json_fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("annotations: the .json member is not JSON") from error
    if not isinstance(fields, dict):
        raise ValueError(f"annotations: the .json member holds {type(fields).__name__}, wanted an object")
    return fields
