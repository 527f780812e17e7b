"""What a clip is: `[start_s, end_s)` of a video, its captions, and the JSON member that stores them in a shard.

A `clip_id` is made of `[A-Za-z0-9_-]` alone, so it is safe as a file name, as a tar member and as a WebDataset key
(which ends at the first dot).
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

CLIP_ID_PATTERN = r"[A-Za-z0-9_-]+"
# A USTAR member name holds 100 bytes; the longest extension with its dot is 5.
MAX_CLIP_ID_LENGTH = 90
# One tuple for what prepare takes, shards hold and foreign shards may bring; everything else is never opened.
VIDEO_EXTENSIONS: tuple[str, ...] = (
    "mp4", "webm", "mkv", "avi", "gif", "mov", "m4v", "mpg", "mpeg", "ts", "mts", "m2ts", "vob", "ogv", "flv", "wmv",
    "3gp", "3g2",
)  # fmt: skip
CaptionSource = Literal["human", "generated", "rephrased", "asr"]
CAPTION_SOURCES: tuple[str, ...] = get_args(CaptionSource)
SPLITS = ("train", "meta", "val", "test")
# Other names under which people keep them, in lower case.
_SPLIT_NAMES = {
    "training": "train", "validation": "val", "valid": "val", "dev": "val", "development": "val", "testing": "test",
}  # fmt: skip

_CLIP_ID = re.compile(CLIP_ID_PATTERN)
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Caption:
    """One text about a clip and where it comes from."""

    text: str
    source: CaptionSource = "human"

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"caption: got {self.text!r}, wanted a text that is not empty")
        check_text("caption", self.text)
        if self.source not in CAPTION_SOURCES:
            raise ValueError(f"caption source: got {self.source!r}, wanted one of {', '.join(CAPTION_SOURCES)}")


@dataclass(frozen=True)
class Clip:
    """`[start_s, end_s)` of a video with what is known about it.

    `truth` is a generator's record of what is in the clip and how its caption was spoiled; only a synthetic corpus
    has it. `source_sha256` is the hash of the video before it was made smaller, None where it is stored as it was.
    Raises ValueError, naming the field, for anything that breaks the contract.
    """

    clip_id: str
    video_id: str
    start_s: float
    end_s: float
    captions: tuple[Caption, ...]
    topic: str | None = None
    split: str | None = None
    questions: tuple[dict, ...] = ()
    truth: dict | None = None
    source_sha256: str | None = None

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        if not isinstance(self.video_id, str) or not self.video_id:
            raise ValueError(f"video_id: got {self.video_id!r}, wanted a name")
        check_text("video_id", self.video_id)
        if self.topic is not None:
            if not isinstance(self.topic, str):
                raise ValueError(f"topic: got {self.topic!r}, wanted a text")
            check_text("topic", self.topic)
        if not (self.truth is None or isinstance(self.truth, dict)):
            raise ValueError(f"truth: got {type(self.truth).__name__}, wanted an object")
        if not all(isinstance(question, dict) for question in self.questions):
            raise ValueError("questions: wanted a list of objects")
        if self.source_sha256 is not None and not (
            isinstance(self.source_sha256, str) and _SHA256.fullmatch(self.source_sha256)
        ):
            raise ValueError(f"source_sha256: got {self.source_sha256!r}, wanted 64 of 0-9 a-f")
        check_times(self.start_s, self.end_s)
        if self.split is not None and self.split not in SPLITS:
            raise ValueError(f"split: got {self.split!r}, wanted one of {', '.join(SPLITS)}")


def is_text(text: str) -> bool:
    """Tell whether UTF-8 can hold it: JSON and names of files can have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(name: str, text: str) -> None:
    """Raise ValueError where UTF-8 cannot hold the text: JSON can spell half of a surrogate pair, files cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: got a lone surrogate at character {error.start}, wanted Unicode text") from None


def normal_split(name: str) -> str:
    """Return the split that a name stands for: `validation` or ` Val` is val. Raises ValueError for an unknown one."""
    folded = name.strip().lower()
    split = _SPLIT_NAMES.get(folded, folded)
    if split not in SPLITS:
        raise ValueError(f"split: got {name!r}, wanted one of {', '.join(SPLITS)}")
    return split


def check_clip_id(clip_id: str) -> None:
    """Raise ValueError unless `clip_id` is a legal one."""
    if not isinstance(clip_id, str) or not _CLIP_ID.fullmatch(clip_id) or len(clip_id) > MAX_CLIP_ID_LENGTH:
        raise ValueError(f"clip_id: got {clip_id!r}, wanted 1 to {MAX_CLIP_ID_LENGTH} of A-Z a-z 0-9 _ -")


def check_times(start_s: float, end_s: float | None) -> None:
    """Raise ValueError unless 0 <= start_s < end_s, both finite; `end_s` None stands for the end of the video."""
    if not math.isfinite(start_s) or start_s < 0:
        raise ValueError(f"start_s: got {start_s}, wanted 0 or more seconds")
    if end_s is not None and not (math.isfinite(end_s) and end_s > start_s):
        raise ValueError(f"end_s: got {end_s}, wanted more than start_s = {start_s}")


def make_clip_id(video_id: str, start_s: float, end_s: float | None) -> str:
    """Name a clip from its video and times alone; different input gives a different name.

    A whole video (`start_s` 0, `end_s` None) with a legal name keeps it. Otherwise the name is a readable part, the
    times in milliseconds and 12 hexadecimal digits of the exact input's hash.
    """
    whole = start_s == 0 and end_s is None
    if whole and _CLIP_ID.fullmatch(video_id) and len(video_id) <= MAX_CLIP_ID_LENGTH:
        return video_id
    digest = hashlib.sha256(f"{video_id}\0{float(start_s)!r}\0{end_s if end_s is None else float(end_s)!r}".encode())
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", video_id).strip("-")[:48] or "clip"
    times = "" if whole else f"_{round(start_s * 1000)}-{'end' if end_s is None else round(end_s * 1000)}"
    return f"{readable}{times}_{digest.hexdigest()[:12]}"


def clip_to_json(clip: Clip) -> bytes:
    """Encode the `<clip_id>.json` member: UTF-8, keys sorted, absent optional fields left out."""
    record: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "captions": [{"text": caption.text, "source": caption.source} for caption in clip.captions],
    }
    optional = {"topic": clip.topic, "split": clip.split, "questions": list(clip.questions), "truth": clip.truth}
    optional["source_sha256"] = clip.source_sha256
    record |= {name: value for name, value in optional.items() if value}
    return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def clip_from_json(data: bytes) -> Clip:
    """Decode a `<clip_id>.json` member. Raises ValueError, saying what is wrong, for anything but a clip."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:  # of bytes, of JSON, or of a number with thousands of digits
        raise ValueError(f"clip JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"clip JSON: got {type(record).__name__}, wanted an object")
    try:
        return Clip(
            clip_id=record["clip_id"],
            video_id=record["video_id"],
            start_s=float(record["start_s"]),
            end_s=float(record["end_s"]),
            captions=tuple(Caption(item["text"], item.get("source", "human")) for item in record["captions"]),
            topic=record.get("topic"),
            split=record.get("split"),
            questions=tuple(record.get("questions") or ()),
            truth=record.get("truth"),
            source_sha256=record.get("source_sha256"),
        )
    except KeyError as error:
        raise ValueError(f"clip JSON: field {error} is missing") from error
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"clip JSON: {error}") from error
