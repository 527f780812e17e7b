"""Annotation tables: CSV, JSON lines or Parquet, read as a stream of rows and checked one by one.

A table-wide fault (unreadable file, unknown or missing column) is a UserError; a fault of one row is a ValueError from
`parse_annotation`, which prepare turns into a quarantine row.
"""

import ast
import csv
import difflib
import itertools
import json
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mama_ray.data.captions import is_nothing, parse_captions
from mama_ray.data.clip import (
    VIDEO_EXTENSIONS,
    Caption,
    check_clip_id,
    check_text,
    check_times,
    make_clip_id,
    normal_split,
)
from mama_ray.data.table_formats import READERS
from mama_ray.errors import UserError
from mama_ray.storage.parquet import is_of_storage
from mama_ray.storage.places import Place

COLUMNS = (
    "video", "clip_id", "video_id", "start_s", "end_s", "caption", "captions", "source", "topic", "split",
    "questions", "truth",
)  # fmt: skip
# Of pandas: the index that to_csv and to_parquet write beside the columns.
_INDEX_COLUMNS = ("", "Unnamed: 0", "__index_level_0__")
# Where "None" or "nan" can only mean that nothing is known; a video or a topic may be called so.
_MAY_SAY_NOTHING = ("start_s", "end_s", "caption", "captions", "source", "split", "questions", "truth")
_MAX_NAME_BYTES = 255  # of a file or folder, on every file system in use
_MAX_PATH_BYTES = 1024  # of a key in S3
_SHOWN_CHARACTERS = 60
_LONGEST_LITERAL = 1 << 16  # characters that are parsed as Python's only to explain them: they take 500 times as much
_ROWS_LOOKED_AT = 200_000  # a second or two


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
        # dataclasses.asdict copies deeply: a third of the time that a table of millions takes.
        return json.dumps({**vars(self), "captions": [vars(one) for one in self.captions]}, ensure_ascii=False)


def annotation_from_json(line: str | bytes) -> Annotation:
    """Read back what `Annotation.to_json` wrote."""
    fields = json.loads(line)
    fields["captions"] = tuple(Caption(**caption) for caption in fields["captions"])
    fields["questions"] = tuple(fields["questions"])
    return Annotation(**fields)


def read_annotations(place: Place, *, unknown_columns: str = "refuse") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, raw row) of an annotation table with little in memory.

    A row that cannot be read, or a JSON line without a video, is yielded as {"error": reason}. Raises UserError when
    the table is missing, empty, unreadable, of an unknown format, of another separator or encoding than its format
    has, without the column `video`, or, unless `unknown_columns` is "ignore", with a column that nobody reads: a
    misspelt one would be lost without a word.
    """
    extension = posixpath.splitext(place.path)[1].lower()
    if extension not in READERS:
        wanted = f"a file ending in {', '.join(READERS)}"
        raise UserError("annotations of an unknown format", got=f"{place}", wanted=wanted)
    number, has_video, others = 0, False, {}
    try:
        for row in READERS[extension](place):
            number += 1
            if "error" not in row:
                row = {name: value for name, value in row.items() if name not in _INDEX_COLUMNS}
                if "video" in row:
                    has_video = True
                    _check_columns(place, row, unknown_columns)
                elif extension == ".jsonl":
                    others.update(dict.fromkeys(row))
                    row = {"error": f"video: got a row without it{_nearest('video', row)}, wanted a path"}
                else:
                    raise _without_video(place, row)
            yield number, row
    except FileNotFoundError as error:
        raise UserError("no such annotation file", got=f"{place}") from error
    except (pa.ArrowInvalid, csv.Error, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and is_of_storage(error, place):
            raise
        detail = " ".join(str(error).split())
        raise UserError(
            "annotations cannot be read",
            got=f"{place}, after row {number}: {detail}",
            wanted=f"valid {extension[1:]} in UTF-8",
        ) from error
    if number == 0:
        raise UserError("annotations have no rows", got=f"{place}", wanted="at least one row with a video")
    if not has_video and others:
        raise _without_video(place, others)


def look_at_table(place: Place, *, unknown_columns: str = "refuse") -> None:
    """Raise the UserError of a table that cannot be used, from its first rows: those of `read_annotations`, and one for
    lists in the syntax of Python, of which every row would be refused.
    """
    for number, row in itertools.islice(read_annotations(place, unknown_columns=unknown_columns), _ROWS_LOOKED_AT):
        for name in ("captions", "questions"):
            value = row.get(name)
            if isinstance(value, str) and _is_python_list(value):
                raise UserError(
                    f"{name} are lists in the syntax of Python",
                    got=f"{place}, row {number}: {value[:60]}",
                    wanted='JSON, as ["one", "two"]',
                    remedy=f"write {name} with json.dumps, or one row per caption with a column caption",
                )


def parse_annotation(row: dict[str, Any], *, default_split: str | None = None) -> Annotation:
    """Check one raw row and fill its defaults. Raises ValueError that names the column."""
    if "error" in row:
        raise ValueError(row["error"])
    values = {name: None if _is_absent(name, row.get(name)) else row[name] for name in COLUMNS}
    video = _video_path(values["video"])
    start_s = _seconds("start_s", values["start_s"]) or 0.0
    end_s = _seconds("end_s", values["end_s"])
    check_times(start_s, end_s)
    video_id = _text("video_id", values["video_id"]) or posixpath.splitext(video)[0]
    clip_id = _text("clip_id", values["clip_id"]) or make_clip_id(video_id, start_s, end_s)
    check_clip_id(clip_id)
    split = _text("split", values["split"])
    split = normal_split(split) if split is not None else default_split
    questions = _structured("questions", values["questions"], list) or []
    if not all(isinstance(question, dict) for question in questions):
        raise ValueError("questions: wanted a list of objects")
    return Annotation(
        clip_id=clip_id,
        video_id=video_id,
        video=video,
        start_s=start_s,
        end_s=end_s,
        captions=_captions(values),
        topic=_text("topic", values["topic"]),
        split=split,
        questions=tuple(questions),
        truth=_structured("truth", values["truth"], dict),
    )


def _captions(values: dict[str, Any]) -> tuple[Caption, ...]:
    """Captions of `caption` (a text) or `captions` (texts, or objects of text and source; JSON in a CSV), not both."""
    caption, captions = values["caption"], values["captions"]
    if caption is not None and captions is not None:
        raise ValueError("captions: got both caption and captions, wanted one of them")
    items = [caption] if caption is not None else _structured("captions", captions, list) or []
    return parse_captions(items, values["source"] or "human")


def _without_video(place: Place, names: Iterable[str]) -> UserError:
    present = ", ".join(map(str, names)) or "none"
    return UserError("annotations lack a column", got=f"{place} with {present}", wanted="a column named video")


def _nearest(name: str, given: Iterable[Any]) -> str:
    near = difflib.get_close_matches(name, [str(other) for other in given], 1)
    return f" ({near[0]} for {name}?)" if near else ""


def _check_columns(place: Place, names: Iterable[str], unknown_columns: str) -> None:
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


def _is_absent(name: str, value: Any) -> bool:
    if name not in _MAY_SAY_NOTHING and isinstance(value, str):
        return not value.strip()
    return is_nothing(value)  # a data frame writes an empty cell as NaN


def _is_python_list(text: str) -> bool:
    """Whether a text is a list as Python prints it and no JSON."""
    if not text.lstrip().startswith("[") or len(text) > _LONGEST_LITERAL:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        try:
            return isinstance(ast.literal_eval(text.strip()), list)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return False
    return False


def _video_path(value: Any) -> str:
    video = _text("video", value)
    if video is None:
        raise ValueError("video: got nothing, wanted a path relative to the folder of videos")
    normal = posixpath.normpath(video)
    if normal.startswith(("/", "../")) or normal == ".." or "\0" in normal:
        raise ValueError(f"video: got {video!r}, wanted a path inside the folder of videos")
    longest = max(len(name.encode()) for name in normal.split("/"))
    if longest > _MAX_NAME_BYTES:
        raise ValueError(f"video: got a name of {longest} bytes, wanted at most {_MAX_NAME_BYTES}")
    if len(normal.encode()) > _MAX_PATH_BYTES:
        raise ValueError(f"video: got a path of {len(normal.encode())} bytes, wanted at most {_MAX_PATH_BYTES}")
    extension = posixpath.splitext(normal)[1].lower().lstrip(".")
    if extension not in VIDEO_EXTENSIONS:
        raise ValueError(f"video: got extension {extension!r}, wanted one of {', '.join(VIDEO_EXTENSIONS)}")
    return normal


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):  # Parquet and JSON keep numeric names as numbers
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{name}: got {_shown(value)}, wanted a text")
    check_text(name, value)
    return value


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # Python takes 1_000 for a number
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: got {_shown(value)}, wanted a number of seconds") from None


def _structured(name: str, value: Any, wanted: type) -> Any:
    """A list or dict, or its JSON text as a CSV holds it."""
    kind = "list" if wanted is list else "object"
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, wanted):
            what = "a list in the syntax of Python" if _is_python_list(value) else _shown(value)
            raise ValueError(f"{name}: got {what}, wanted a JSON {kind}")
        value = parsed
    if value is None:
        return None
    if not isinstance(value, wanted):
        raise ValueError(f"{name}: got {_shown(value)}, wanted a JSON {kind}")
    _check_is_json(name, value)
    return value


def _check_is_json(name: str, value: Any) -> None:
    """Raise ValueError for what Parquet can nest and JSON cannot say: bytes, dates; and for lone surrogates."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: got a lone surrogate, wanted Unicode text") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name}: got what JSON cannot hold ({error})") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"
