"""The caption table: Parquet files of one row per clip and generated caption, tied to the pixels it was written from.

A finished table is a folder of `captions-XXXXXX.parquet`, in the order of the shards' index, and `captions.json`, which
is written last and names the files with their numbers of rows. A folder without it is no table.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, Field

from mama_ray.errors import UserError
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.small_files import MAX_JSON_BYTES, check_form, parse_json, require_plain_name

SUMMARY_NAME = "captions.json"
TABLE_VERSION = 2
CAPTION_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("sample", pa.int32()),  # number of the caption among those of its clip, from 0
        ("video_sha256", pa.string()),
        ("frame_indices", pa.list_(pa.int32())),  # of a grid's cells, null where the engine was not shown a grid
        ("num_filled", pa.int32()),  # grid cells that the choice of key frames left to other frames, null likewise
        ("shown_sha256", pa.string()),  # of what the engine was shown
        ("caption", pa.string()),  # null where there is an error
        ("source", pa.string()),
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
        ("prompt", pa.string()),
        ("temperature", pa.float32()),
        ("top_p", pa.float32()),
        ("max_tokens", pa.int32()),
        ("seed", pa.int64()),  # of this caption's sampling
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("mean_logprob", pa.float32()),  # natural logarithm, mean over the caption's tokens
        # Cosine of video and caption, null without a dual encoder, and where it could not be shown the clip.
        ("similarity", pa.float32()),
        ("flags", pa.list_(pa.string())),  # what the quality gate found, [] for a good caption
        ("error", pa.string()),  # why there is no caption, null for a caption
    ]
)
# What columns were called in version 1, whose tables stay readable and whose unfinished jobs go on.
_NAMES_OF_VERSION_1 = {"shown_sha256": "grid_sha256"}
_CAPTION_AGAIN = "run jobs/caption.py with the same arguments; it goes on where it stopped"


class _Files(BaseModel):
    files: dict[Annotated[str, AfterValidator(require_plain_name)], Annotated[int, Field(ge=0, lt=1 << 40)]]


def file_name(number: int) -> str:
    """Return the name of file `number` of a table."""
    return f"captions-{number:06d}.parquet"


def read_summary(folder: Place) -> dict[str, Any]:
    """Return captions.json of a finished table; UserError where there is none."""
    place = folder / SUMMARY_NAME
    with storage_errors(f"{place}"):
        try:
            summary = parse_json(with_retries(lambda: place.read_bytes(MAX_JSON_BYTES)), place)
        except FileNotFoundError as error:
            raise UserError("no finished caption table", got=f"{place}", remedy=_CAPTION_AGAIN) from error
        except ValueError as error:
            raise UserError("the caption table's summary cannot be read", got=f"{place} ({error})") from error
    version = summary.get("version") if isinstance(summary, dict) else None
    if version is not None and version not in (1, TABLE_VERSION):
        raise UserError("caption table of another version", got=version, wanted=f"1 or {TABLE_VERSION}")
    if version is None or not isinstance(summary.get("files"), dict):
        raise UserError("not the summary of a caption table", got=f"{place}", remedy=_CAPTION_AGAIN)
    check_form(_Files, {"files": summary["files"]}, place)
    return summary


def read_caption_files(folder: Place, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the files of a finished table, one in memory at a time, all columns or some.

    A table of version 1 has the columns of this one as well. Raises UserError for an unfinished table and for files
    that are not those that its summary names.
    """
    summary = read_summary(folder)
    if columns is not None and summary["version"] == 1:
        columns = [_NAMES_OF_VERSION_1.get(name, name) for name in columns]
    wanted = list(columns) if columns is not None else None
    for name, num_rows in summary["files"].items():
        place = folder / name
        with storage_errors(f"{place}"):
            try:
                table = read_parquet(place, lambda parquet: parquet.read(columns=wanted))
            except (FileNotFoundError, pa.ArrowInvalid) as error:
                reason = " ".join(str(error).split())
                raise UserError("a file of the caption table cannot be read", got=f"{place} ({reason})") from error
        if len(table) != num_rows:
            raise UserError(
                "a file of the caption table is another one", got=f"{place}, {len(table)} rows", wanted=num_rows
            )
        table = with_current_names(table)
        _check_columns(place, table, None if wanted is None else [_current_name(name) for name in wanted])
        yield table


def _check_columns(place: Place, table: pa.Table, wanted: list[str] | None) -> None:
    """Raise UserError unless the columns are those of a caption table, with their types."""
    there = {name: table.schema.field(name).type for name in table.column_names}
    for name in wanted if wanted is not None else there:
        expected = CAPTION_SCHEMA.field(name).type if name in CAPTION_SCHEMA.names else None
        if there.get(name) != expected:
            got = f"{place}: {name} is {there.get(name, 'missing')}"
            raise UserError("not a file of a caption table", got=got, wanted=expected or "no such column")


def with_current_names(table: pa.Table) -> pa.Table:
    """Return (a part of) a table of any version with this version's names of its columns."""
    return table.rename_columns([_current_name(name) for name in table.column_names])


def _current_name(name: str) -> str:
    return {old: new for new, old in _NAMES_OF_VERSION_1.items()}.get(name, name)
