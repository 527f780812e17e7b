"""Annotation tables: CSV, JSON lines or Parquet, read as a stream of rows and checked one by one.

A table-wide fault (unreadable file, unknown or missing column) is a UserError; a fault of one row is a ValueError from
`parse_annotation`, which prepare turns into a quarantine row.
"""

import csv
import difflib
import io
import json
import math
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.data.clip import SPLITS, VIDEO_EXTENSIONS, Caption, check_clip_id, check_times, make_clip_id
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

COLUMNS = (
    "video", "clip_id", "video_id", "start_s", "end_s", "caption", "captions", "source", "topic", "split",
    "questions", "truth",
)  # fmt: skip
FORMATS = (".csv", ".jsonl", ".parquet")
_ROWS_PER_BATCH = 1024
# A row longer than this is a table whose quotes or line ends are broken.
_MAX_ROW_CHARACTERS = 16 << 20


@dataclass(frozen=True)
class Annotation:
    """One checked row: which part of which video, and what is said about it. `end_s` None is the video's end."""

    clip_id: str
    video_id: str
    video: str
    """Path relative to the folder of videos."""
    start_s: float
    end_s: float | None
    captions: tuple[Caption, ...]
    topic: str | None
    split: str | None
    questions: tuple[dict, ...]
    truth: dict | None

    def to_json(self) -> str:
        """One line that `annotation_from_json` reads back."""
        return json.dumps(asdict(self), ensure_ascii=False)


def annotation_from_json(line: str | bytes) -> Annotation:
    """Read back what `Annotation.to_json` wrote."""
    fields = json.loads(line)
    fields["captions"] = tuple(Caption(**caption) for caption in fields["captions"])
    fields["questions"] = tuple(fields["questions"])
    return Annotation(**fields)


def read_annotations(place: Place, *, unknown_columns: str = "refuse") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, raw row) of an annotation table with little in memory.

    A JSON line that is no object is yielded as {"error": reason}. Raises UserError when the table is missing, empty,
    unreadable, of an unknown format, without the column `video`, or, unless `unknown_columns` is "ignore", with a
    column that nobody reads: a misspelt one would be lost without a word.
    """
    extension = posixpath.splitext(place.path)[1].lower()
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if extension not in readers:
        raise UserError(
            "annotations of an unknown format", got=f"{place}", wanted=f"a file ending in {', '.join(FORMATS)}"
        )
    number = 0
    try:
        for row in readers[extension](place):
            number += 1
            if "error" not in row:
                _check_columns(place, row.keys(), unknown_columns)
            yield number, row
    except FileNotFoundError as error:
        raise UserError("no such annotation file", got=f"{place}") from error
    except (pa.ArrowInvalid, csv.Error, UnicodeDecodeError, OSError) as error:
        detail = " ".join(str(error).split())
        raise UserError(
            "annotations cannot be read",
            got=f"{place}, after row {number}: {detail}",
            wanted=f"valid {extension[1:]} in UTF-8",
        ) from error
    if number == 0:
        raise UserError("annotations have no rows", got=f"{place}", wanted="at least one row with a video")


def parse_annotation(row: dict[str, Any], *, default_split: str | None = None) -> Annotation:
    """Check one raw row and fill its defaults. Raises ValueError that names the column."""
    if "error" in row:
        raise ValueError(row["error"])
    values = {name: None if _is_absent(row.get(name)) else row[name] for name in COLUMNS}
    video = _video_path(values["video"])
    start_s = _seconds("start_s", values["start_s"]) or 0.0
    end_s = _seconds("end_s", values["end_s"])
    check_times(start_s, end_s)
    video_id = _text("video_id", values["video_id"]) or posixpath.splitext(video)[0]
    clip_id = _text("clip_id", values["clip_id"]) or make_clip_id(video_id, start_s, end_s)
    check_clip_id(clip_id)
    split = _text("split", values["split"]) or default_split
    if split is not None and split not in SPLITS:
        raise ValueError(f"split: got {split!r}, wanted one of {', '.join(SPLITS)}")
    questions = _structured("questions", values["questions"], list) or []
    if not all(isinstance(question, dict) for question in questions):
        raise ValueError("questions: wanted a list of objects")
    return Annotation(
        clip_id=clip_id,
        video_id=video_id,
        video=video,
        start_s=start_s,
        end_s=end_s,
        captions=parse_captions(values["caption"], values["captions"], values["source"] or "human"),
        topic=_text("topic", values["topic"]),
        split=split,
        questions=tuple(questions),
        truth=_structured("truth", values["truth"], dict),
    )


def parse_captions(caption: Any, captions: Any, source: Any) -> tuple[Caption, ...]:
    """Captions of `caption` (a text) or `captions` (texts, or objects of text and source; JSON in a CSV), not both."""
    if caption is not None and captions is not None:
        raise ValueError("captions: got both caption and captions, wanted one of them")
    items = [caption] if caption is not None else _structured("captions", captions, list) or []
    found = []
    for item in items:
        if isinstance(item, dict):
            found.append(Caption(item.get("text"), item.get("source") or source))
        else:
            found.append(Caption(item, source))
    return tuple(found)


def _read_csv(place: Place) -> Iterator[dict[str, Any]]:
    with place.open_stream() as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")
        reader = csv.reader(lines, strict=True)
        header = [name.strip() for name in next(reader, [])]
        repeated = {name for name in header if header.count(name) > 1}
        if repeated:
            raise UserError("annotations name a column twice", got=f"{place}: {', '.join(sorted(repeated))}")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                yield {"error": f"row: got {len(values)} fields, wanted {len(header)} as in the header"}
            else:
                yield dict(zip(header, values, strict=True))


def _read_jsonl(place: Place) -> Iterator[dict[str, Any]]:
    with place.open_stream() as stream:
        lines = io.BufferedReader(stream)
        while line := lines.readline(_MAX_ROW_CHARACTERS):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield {"error": f"row: not JSON ({error})"}
                continue
            yield row if isinstance(row, dict) else {"error": f"row: got {type(row).__name__}, wanted a JSON object"}


def _read_parquet(place: Place) -> Iterator[dict[str, Any]]:
    with place.open_file() as file, pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=_ROWS_PER_BATCH):
            yield from batch.to_pylist()


def _check_columns(place: Place, names: Iterable[str], unknown_columns: str) -> None:
    names = list(names)
    if "video" not in names:
        present = ", ".join(map(str, names)) or "none"
        raise UserError("annotations lack a column", got=f"{place} with {present}", wanted="a column named video")
    unknown = [name for name in names if name not in COLUMNS]
    if unknown and unknown_columns != "ignore":
        nearest = {name: difflib.get_close_matches(str(name), COLUMNS, 1) for name in unknown}
        shown = ", ".join(f"{name} (meant {near[0]}?)" if near else str(name) for name, near in nearest.items())
        raise UserError(
            "annotations have unknown columns",
            got=f"{place}: {shown}",
            wanted=", ".join(COLUMNS),
            remedy="rename or remove them, or set unknown_columns to ignore",
        )


def _is_absent(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)  # how a data frame writes an empty cell
    return value is None or (isinstance(value, str) and not value.strip())


def _video_path(value: Any) -> str:
    video = _text("video", value)
    if video is None:
        raise ValueError("video: got nothing, wanted a path relative to the folder of videos")
    normal = posixpath.normpath(video)
    if normal.startswith(("/", "..")) or "\0" in normal:
        raise ValueError(f"video: got {video!r}, wanted a path inside the folder of videos")
    extension = posixpath.splitext(normal)[1].lower().lstrip(".")
    if extension not in VIDEO_EXTENSIONS:
        raise ValueError(f"video: got extension {extension!r}, wanted one of {', '.join(VIDEO_EXTENSIONS)}")
    return normal


def _text(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):  # Parquet and JSON keep numeric names as numbers
        return str(value)
    raise ValueError(f"{name}: got {value!r}, wanted a text")


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool):
        raise ValueError(f"{name}: got {value!r}, wanted a number of seconds")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {value!r}, wanted a number of seconds") from error


def _structured(name: str, value: Any, wanted: type) -> Any:
    """A list or dict, or its JSON text as a CSV holds it."""
    if value is None or isinstance(value, wanted):
        return value
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, wanted):
        kind = "list" if wanted is list else "object"
        raise ValueError(f"{name}: got {str(value)[:60]!r}, wanted a JSON {kind}")
    return parsed
