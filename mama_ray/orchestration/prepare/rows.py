"""The rows of a table, checked and joined to clips: rows that agree but for the caption are one clip.

The rows of a clip may lie anywhere in a table of millions, so they wait in a SQLite database on this machine's disk,
which sorts them with little memory.
"""

import errno
import hashlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mama_ray.data.annotations import Annotation, annotation_from_json, parse_annotation
from mama_ray.data.captions import is_nothing
from mama_ray.data.clip import make_clip_id, normal_split
from mama_ray.orchestration.prepare.splits import SplitDraw, SplitRequest, draw_from

_ROWS_AT_ONCE = 10_000
_CREATE = """
    CREATE TABLE rows (number INTEGER PRIMARY KEY, clip_id TEXT, video_id TEXT, video TEXT, is_named INTEGER,
        split TEXT, line TEXT)
"""
# The rows of a clip together and the clips of a video together, so that it is opened once, in the order in which they
# first come.
_IN_ORDER = """
    SELECT number, is_named, line, MIN(number) OVER (PARTITION BY clip_id, video) AS first FROM rows
    ORDER BY MIN(number) OVER (PARTITION BY video), first, number
"""
# Videos that share their names up to the extension, but for the first of each name.
_NAMESAKES = """
    SELECT video FROM (
        SELECT video, ROW_NUMBER() OVER (PARTITION BY video_id ORDER BY MIN(number)) AS place
        FROM rows WHERE NOT is_named & 1 GROUP BY video_id, video
    ) WHERE place > 1
"""


@dataclass(frozen=True)
class RefusedRow:
    """A row that is no clip: why, and what is known of it."""

    reason: str
    known: dict[str, Any]


def checked_clips(
    rows: Iterable[tuple[int, dict[str, Any]]],
    *,
    default_split: str | None,
    split: Sequence[str] = (),
    scratch: str,
) -> Iterator[Annotation | RefusedRow]:
    """Check raw rows, numbered from 1, and join them: refused rows as they come, then the clips in order.

    A clip has the captions of all rows that agree with its first one in everything else; a row of the same clip_id that
    does not agree is refused. Of two videos that differ in the extension alone, the second has it in its video_id.
    `split` says which splits to draw where no row of a video names one (`splits.py`); else they get `default_split`.
    `scratch` is a local folder for the rows while they are sorted. Memory is 8 bytes (in a Python set: about 70) per
    clip_id.
    """
    with _disk_errors(), closing(sqlite3.connect(f"{scratch}/rows.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")  # it lives as long as this call
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_CREATE)
        request = SplitRequest.of(split, default_split) if split else None
        default_split = default_split if request is None else None
        waiting = []
        for number, row in rows:
            try:
                waiting.append(_checked(number, row, default_split))
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                yield RefusedRow(f"{error} (row {number})", _known(row, default_split))
            if len(waiting) == _ROWS_AT_ONCE:
                _insert(database, waiting)
                waiting = []
        _insert(database, waiting)
        draw = draw_from(database, request) if request is not None else None
        yield from _joined(database, draw)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        code = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(code, f"sorting the rows on this machine's disk: {error}") from error


def _checked(number: int, row: dict[str, Any], default_split: str | None) -> tuple:
    annotation = parse_annotation(row, default_split=default_split)
    is_named = 1 * (not is_nothing(row.get("video_id"))) + 2 * (not is_nothing(row.get("clip_id")))
    line = annotation.to_json()
    line.encode()  # a lone surrogate would fail later, in another task
    return number, annotation.clip_id, annotation.video_id, annotation.video, is_named, annotation.split, line


def _insert(database: sqlite3.Connection, rows: list[tuple]) -> None:
    database.execute("BEGIN")
    database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    database.execute("COMMIT")


def _joined(database: sqlite3.Connection, draw: SplitDraw | None) -> Iterator[Annotation | RefusedRow]:
    namesakes = {video for (video,) in database.execute(_NAMESAKES)}
    seen: set[bytes] = set()
    for first, rows in itertools.groupby(database.execute(_IN_ORDER), key=lambda row: row[3]):
        (_, is_named, line, _), *others = rows
        as_written = annotation_from_json(line)
        clip = _with_extension(as_written, is_named) if as_written.video in namesakes else as_written
        digest = hashlib.blake2b(clip.clip_id.encode(), digest_size=8).digest()
        if digest in seen:
            yield _duplicate(clip, first, "video")
            for number, _, line, _ in others:
                yield _duplicate(annotation_from_json(line), number, "video")
            continue
        seen.add(digest)
        # A list within a row stays as it is: MSVD's repeats captions, and each is a query of its benchmark.
        captions, known = list(clip.captions), set(clip.captions)
        for number, _, line, _ in others:
            other = annotation_from_json(line)
            differing = _difference(as_written, other)
            if differing:
                yield _duplicate(other, number, differing)
            else:
                captions += [caption for caption in other.captions if caption not in known]
                known.update(other.captions)
        split = clip.split
        if draw is not None and split is None:
            try:
                split = draw.split_of(as_written.video_id)
            except ValueError as error:
                yield RefusedRow(f"{error} (row {first})", _names_of(clip))
                continue
        yield replace(clip, captions=tuple(captions), split=split)


def _with_extension(clip: Annotation, is_named: int) -> Annotation:
    """Name a video by its whole path, because another one has the same name but for the extension."""
    video_id = clip.video_id if is_named & 1 else clip.video
    clip_id = clip.clip_id if is_named & 2 else make_clip_id(video_id, clip.start_s, clip.end_s)
    return replace(clip, video_id=video_id, clip_id=clip_id)


def _difference(clip: Annotation, other: Annotation) -> str:
    """Name what two rows of a clip do not agree in, "" where it is the captions alone."""
    for name in ("video_id", "start_s", "end_s", "split", "topic", "questions", "truth"):
        if getattr(clip, name) != getattr(other, name):
            return name
    return ""


def _duplicate(clip: Annotation, number: int, differing: str) -> RefusedRow:
    reason = f"duplicate clip_id: got {clip.clip_id} again with another {differing} (row {number})"
    return RefusedRow(reason, _names_of(clip))


def _names_of(clip: Annotation) -> dict[str, Any]:
    return {name: getattr(clip, name) for name in ("clip_id", "video_id", "video", "split")}


def _known(row: dict[str, Any], default_split: str | None) -> dict[str, Any]:
    """What a refused row says of itself, as far as it can be told."""
    known = {key: row[key] for key in ("clip_id", "video_id", "video") if isinstance(row.get(key), str)}
    split = row.get("split")
    if isinstance(split, str) and not is_nothing(split):
        try:
            known["split"] = normal_split(split)
        except ValueError:
            known["split"] = split.strip()
    elif "error" not in row:
        known["split"] = default_split
    return known
