"""Indexing shards that something else wrote, in place: one task walks one tar, nothing is rewritten.

A video may have any known extension. Its captions are the `.txt` member and, of the `.json` member, the field
caption, text or captions; a `.json` member that this project wrote is read whole. Which members belong to a video is
said in `data/pairing.py`. The tar itself is checked on the way.
"""

import hashlib
import io
import json
import tempfile
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from mama_ray.data.captions import is_nothing, parse_captions
from mama_ray.data.clip import CaptionSource, Clip, check_clip_id, clip_from_json, is_text, make_clip_id, normal_split
from mama_ray.data.index import index_row
from mama_ray.data.shard import DECOMPRESS, Sample, ShardError, scan_shard
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.listing import ListedFile, list_files
from mama_ray.orchestration.prepare.parts import WORK_FOLDER, Part, read_part_facts, write_part
from mama_ray.orchestration.prepare.videos import guard_for
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

_CAPTION_FIELDS = ("caption", "text", "captions")
_COMPRESSED_ENDS = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4", ".tar.lzma",
)  # fmt: skip
_NUM_SHOWN = 20
_READ_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True)
class ShardWork:
    """What the tasks need to know; picklable and small."""

    shards: str
    default_split: str | None
    source: CaptionSource
    num_trial_frames: int
    decode: DecodeConfig
    unknown_splits: str = "refuse"


@dataclass(frozen=True)
class ForeignShard(ListedFile):
    """A tar as it is now."""

    @property
    def part_name(self) -> str:
        """Name of its part; one that was mended gets another."""
        identity = f"{self.name}\0{self.num_bytes}\0{self.modified_ns}"
        return "shard-" + hashlib.sha256(identity.encode()).hexdigest()[:16]


def list_shards(shards: str, *, compressed_are_refused: bool = True) -> list[ForeignShard]:
    """Return every .tar below the folder, sorted by name.

    Raises UserError where there is none, and for compressed ones, which would be passed over without a word;
    unless they are not refused: then they are listed, too, and each will be found to be damaged.
    """
    try:
        listed = list_files(Place.of(shards))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError("no such folder of shards", got=shards) from error
    files = [
        ForeignShard(file.name, file.num_bytes, file.modified_ns)
        for file in listed
        if f"/{WORK_FOLDER}/" not in f"/{file.name}"
    ]
    compressed = [file for file in files if file.name.lower().endswith(_COMPRESSED_ENDS)]
    found = [file for file in files if file.name.lower().endswith(".tar")]
    if compressed and compressed_are_refused:
        more = ", ..." if compressed[_NUM_SHOWN:] else ""
        names = ", ".join(shard.name for shard in compressed[:_NUM_SHOWN]) + more
        raise UserError(
            "the folder has compressed shards",
            got=f"{len(compressed)} beside {len(found)} plain ones: {names}",
            wanted="files ending in .tar",
            remedy=f"{DECOMPRESS}; or move them away",
        )
    odd = [ascii(shard.name) for shard in found + compressed if not is_text(shard.name)]
    if odd:
        raise UserError("names of shards are not UTF-8", got=", ".join(odd[:_NUM_SHOWN]), remedy="rename them")
    if not found and not compressed:
        raise UserError("the folder has no shards", got=shards, wanted="files ending in .tar (not compressed)")
    return sorted(found + compressed, key=attrgetter("name"))


def index_shard(work: ShardWork, name: str, shard: str) -> tuple[int, int]:
    """Walk one tar and write the part `name`; return the numbers of clips and of refused clips.

    Raises OSError when the storage fails again and again.
    """
    folder = Place.of(work.shards)
    facts = read_part_facts(folder, name)
    if facts is None:
        part = with_retries(lambda: _walk(work, folder, shard))
        write_part(folder, name, part)
        return len(part.rows), len(part.quarantine)
    return facts["num_clips"], len(facts["quarantine"])


def _walk(work: ShardWork, folder: Place, shard: str) -> Part:
    place = folder / shard
    part, num_bytes = Part(source=shard), place.info().size
    guard = guard_for(work.decode, work.num_trial_frames)
    with tempfile.TemporaryDirectory(prefix="mama_ray-prepare-") as scratch:
        try:
            # At any offset, so that what is passed over is never fetched.
            with place.open_file() as file, io.BufferedReader(file, _READ_BUFFER_BYTES) as stream:
                for sample in scan_shard(stream, num_bytes=num_bytes, max_video_bytes=work.decode.max_bytes):
                    if sample.error and sample.video is not None:
                        part.withdraw(shard, sample.video.offset)
                    try:
                        part.take(_row(work, sample, guard, shard, scratch))
                    except ValueError as error:
                        known = {"clip_id": clip_id_of(sample.key), "video": f"{shard}/{sample.key}"}
                        part.refuse(str(error), split=_known_split(sample), **known)
        except ShardError as error:
            # What came before the damage is not taken either: half a shard would pass for a whole one.
            part = Part(source=shard, damage=f"{shard} ({error})")
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
    clip = clip_of(
        sample,
        facts["duration_s"],
        default_split=work.default_split,
        source=work.source,
        unknown_splits=work.unknown_splits,
    )
    return index_row(clip, sample.video, shard, facts)


def _known_split(sample: Sample) -> str | None:
    """The split of a refused sample, None where it says none that is known."""
    try:
        return _split_of(_json_fields(sample.texts["json"]), "ignore") if "json" in sample.texts else None
    except ValueError:
        return None


def _split_of(fields: dict[str, Any], unknown_splits: str) -> str | None:
    name = fields.get("split")
    if not isinstance(name, str) or is_nothing(name):
        return None
    try:
        return normal_split(name)
    except ValueError:
        if unknown_splits == "ignore":
            return None
        raise


def clip_id_of(key: str) -> str:
    """A key that is a legal clip_id stays; of any other a deterministic one is made."""
    name = key.rpartition("/")[2]
    try:
        check_clip_id(name)
    except ValueError:
        return make_clip_id(key, 0, None)
    return name if name == key.removeprefix("./") else make_clip_id(key, 0, None)


def clip_of(
    sample: Sample,
    duration_s: float,
    *,
    default_split: str | None,
    source: CaptionSource,
    unknown_splits: str = "refuse",
) -> Clip:
    """Build the clip of a foreign sample. Raises ValueError when its annotations cannot be read.

    A split that is not known is refused, because the clip may be of a test set, or ignored.
    """
    fields = {}
    if "json" in sample.texts:
        try:
            return clip_from_json(sample.texts["json"])  # of our own making: nothing to guess
        except ValueError:
            fields = _json_fields(sample.texts["json"])
    items: list = []
    if "txt" in sample.texts:
        try:
            items.append(sample.texts["txt"].decode("utf-8-sig").strip())
        except UnicodeDecodeError as error:
            raise ValueError("annotations: the .txt member is not UTF-8") from error
    for name in _CAPTION_FIELDS:
        value = fields.get(name)
        items += value if isinstance(value, list) else [value]
    video_id = fields.get("video_id")
    return Clip(
        clip_id=clip_id_of(sample.key),
        video_id=video_id if isinstance(video_id, str) and video_id else sample.key,
        start_s=0.0,
        end_s=duration_s,
        captions=tuple(dict.fromkeys(parse_captions(items, source))),
        topic=fields["topic"] if isinstance(fields.get("topic"), str) else None,
        split=_split_of(fields, unknown_splits) or default_split,
    )


def _json_fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("annotations: the .json member is not JSON") from error
    if not isinstance(fields, dict):
        raise ValueError(f"annotations: the .json member holds {type(fields).__name__}, wanted an object")
    return fields
