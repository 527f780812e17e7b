"""EgoClip, EgoVLP's table of narrated clips of Ego4D: tab-separated text with a header, whatever its name ends in.

Its columns are clip_idx, video_uid, video_dur, narration_source, narration_ind, narration_time, clip_start, clip_end,
clip_text, tag_verb and tag_noun (EgoVLP, NeurIPS 2022); four of them are read.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from mama_ray.data.narrations.rows import narration_row
from mama_ray.data.table_formats import read_csv
from mama_ray.errors import UserError
from mama_ray.storage.parquet import is_of_storage
from mama_ray.storage.places import Place

AnnotationsFormat = Literal["table", "egoclip"]
_HEADER_BYTES = 4096
_COLUMNS = ("video_uid", "clip_start", "clip_end", "clip_text")


def read_egoclip(place: Place, clamped: Counter | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, row of annotations) with little in memory; a bad row is {"error": reason}.

    Starts below 0 are taken as 0 and counted in `clamped`. Raises UserError for a file of anything else.
    """
    clamped, number = Counter() if clamped is None else clamped, 0
    try:
        for row in read_csv(place, "\t"):
            number += 1
            if "error" in row:
                yield number, row
                continue
            if number == 1 or not row.keys() >= set(_COLUMNS):
                _check_columns(place, row)
            yield number, _converted(row, clamped)
    except FileNotFoundError as error:
        raise UserError("no such annotation file", got=f"{place}") from error
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and is_of_storage(error, place):
            raise
        got = f"{place}, after row {number}: {' '.join(str(error).split())}"
        raise UserError("EgoClip cannot be read", got=got, wanted="tab-separated text in UTF-8") from error
    if not number:
        raise UserError("annotations have no rows", got=f"{place}", wanted="at least one narration")


def is_egoclip(place: Place) -> bool:
    """Tell by its header whether a file is EgoClip's; one that cannot be read is not."""
    try:
        with place.open_stream() as stream:
            header = stream.read(_HEADER_BYTES).partition(b"\n")[0].decode("utf-8-sig", "replace")
    except OSError:
        return False
    return {name.strip() for name in header.split("\t")} >= set(_COLUMNS)


def _converted(row: dict[str, Any], clamped: Counter) -> dict[str, Any]:
    uid, start_s, end_s, text = (row[name] for name in _COLUMNS)
    try:
        return narration_row(uid, start_s, end_s, [text], "human", clamped)
    except ValueError as error:
        return {"error": str(error), "video_id": uid}


def _check_columns(place: Place, row: dict[str, Any]) -> None:
    missing = [name for name in _COLUMNS if name not in row]
    if missing:
        raise UserError(
            "no file of EgoClip",
            got=f"{place} without {', '.join(missing)}",
            wanted=f"the columns {', '.join(_COLUMNS)}, separated by tabs",
            remedy="a table of the project's own columns is read without --annotations_format egoclip",
        )
