"""The files of a table of embeddings: what it is of, which parts it has, and the rows of a part.

`config.json` says of which model and shards the features are; `embeddings.jsonl`, written last, names the parts with
their counts, one a line below the line of the whole. A folder without it is no table, but for one of version 1, which
has the same in `embeddings.json`.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mama_ray.errors import UserError
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.small_files import MAX_FILE_BYTES, FileFormError, check_form, parse_json, require_plain_name

TABLE_VERSION = 2
IDENTITY_NAME = "config.json"
SUMMARY_NAME = "embeddings.jsonl"
_SUMMARY_OF_VERSION_1 = "embeddings.json"
INDEX_AGAIN = "run jobs/index.py with the same arguments; it goes on where it stopped"


class TableIdentity(BaseModel):
    """What the features of a table depend on, as config.json has it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    version: int = Field(ge=1, le=TABLE_VERSION)
    model_hash: str = Field(pattern="^[0-9a-f]{64}$")
    """`Towers.model_hash` of the model that made the features."""
    model: str
    """The model as it was named."""
    shards: str
    """Where the clips lie."""
    dim: int = Field(gt=0, le=1 << 14)


class PartCounts(BaseModel):
    num_clips: int = Field(ge=0, lt=1 << 40)
    num_captions: int = Field(ge=0, lt=1 << 40)


_PartName = Annotated[str, AfterValidator(require_plain_name)]


class _Line(PartCounts):
    """A line of the summary's file."""

    name: _PartName


class _Head(BaseModel):
    """The first line of it."""

    version: int = Field(ge=2, le=TABLE_VERSION)
    num_parts: int = Field(ge=0)
    num_errors: int = Field(ge=0)


class Summary(BaseModel):
    """The parts of a finished table by name, and how many of its clips have no video feature."""

    parts: dict[_PartName, PartCounts]
    num_errors: int = Field(0, ge=0)


def embedding_schema(dim: int) -> pa.Schema:
    """Return the columns of a part; a clip that cannot be read has no video feature and an error."""
    feature = pa.list_(pa.float16(), dim)
    caption = pa.struct([("source", pa.string()), ("index", pa.int32()), ("feature", feature)])
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("video_sha256", pa.string()),
            ("video", feature),
            ("error", pa.string()),
            ("texts_sha256", pa.string()),  # of the captions' sources and texts
            ("captions", pa.list_(caption)),
        ]
    )


def read_identity(folder: Place) -> TableIdentity:
    """Return config.json of a table; UserError where there is none."""
    with storage_errors(folder.uri):
        content = (folder / IDENTITY_NAME).read_json()
    if content is None:
        raise UserError(f"{folder.uri} is no index of embeddings", wanted=IDENTITY_NAME, remedy=INDEX_AGAIN)
    return check_form(TableIdentity, content, folder / IDENTITY_NAME)


def write_summary(folder: Place, summary: Summary) -> None:
    """Write what makes a folder a table; UserError where it would be too large to be read again."""
    counts = {name: sum(getattr(one, name) for one in summary.parts.values()) for name in PartCounts.model_fields}
    head = {"version": TABLE_VERSION, "num_parts": len(summary.parts), **counts, "num_errors": summary.num_errors}
    parts = ({"name": name, **summary.parts[name].model_dump()} for name in sorted(summary.parts))
    data = "".join(f"{json.dumps(line)}\n" for line in (head, *parts)).encode()
    if len(data) > MAX_FILE_BYTES:
        raise UserError(
            "the index has too many files",
            got=f"{len(summary.parts)}, whose list has {len(data)} bytes",
            wanted=f"{MAX_FILE_BYTES} bytes at most",
            remedy="start it with a larger --part_clips and another --output",
        )
    (folder / SUMMARY_NAME).write_whole(data)
    earlier = folder / _SUMMARY_OF_VERSION_1
    if earlier.is_file():  # it says no longer what the table is
        earlier.delete_file()


def find_summary(folder: Place) -> Summary | None:
    """Return the summary of a table, None where it is not finished; FileFormError for one that is damaged."""
    place, earlier = folder / SUMMARY_NAME, folder / _SUMMARY_OF_VERSION_1
    try:
        head, *lines = place.read_bytes().split(b"\n")
    except FileNotFoundError:
        try:
            return check_form(Summary, parse_json(earlier.read_bytes(), earlier), earlier)
        except FileNotFoundError:
            return None
    told = check_form(_Head, parse_json(head, place), place)
    named = [check_form(_Line, parse_json(line, place), place) for line in lines if line]
    if len(named) != told.num_parts:
        raise FileFormError(f"{place} is cut", got=f"{len(named)} parts", wanted=told.num_parts)
    parts = {one.name: PartCounts(num_clips=one.num_clips, num_captions=one.num_captions) for one in named}
    return Summary(parts=parts, num_errors=told.num_errors)


def read_summary(folder: Place) -> dict[str, PartCounts]:
    """Return the parts of a finished table by name, with their counts; UserError where it is not finished."""
    with storage_errors(folder.uri):
        summary = find_summary(folder)
    if summary is None:
        raise UserError(f"the index {folder.uri} is not finished", wanted=SUMMARY_NAME, remedy=INDEX_AGAIN)
    return summary.parts


def part_table(rows: Sequence[Mapping[str, Any]], dim: int) -> pa.Table:
    """Return a part of rows with the columns of `embedding_schema`; features are arrays, or None for no video."""
    schema = embedding_schema(dim)
    columns = {field.name: [row[field.name] for row in rows] for field in schema}
    captions = [caption for own in columns["captions"] for caption in own]
    struct = schema.field("captions").type.value_type
    values = pa.StructArray.from_arrays(
        [
            pa.array([caption["source"] for caption in captions], pa.string()),
            pa.array([caption["index"] for caption in captions], pa.int32()),
            _features([caption["feature"] for caption in captions], dim),
        ],
        fields=list(struct),
    )
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in columns["captions"]], dtype=np.int32)])
    plain = {
        name: pa.array(columns[name], pa.string()) for name in ("clip_id", "video_sha256", "error", "texts_sha256")
    }
    listed = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=schema.field("captions").type)
    return pa.table({**plain, "video": _features(columns["video"], dim), "captions": listed}).select(schema.names)


def write_part(place: Place, rows: Sequence[Mapping[str, Any]], dim: int) -> PartCounts:
    """Write a part whole."""
    place.write_whole(partial(pq.write_table, part_table(rows, dim), compression="zstd"))
    return PartCounts(num_clips=len(rows), num_captions=sum(len(row["captions"]) for row in rows))


def _features(rows: Sequence[np.ndarray | None], dim: int) -> pa.FixedSizeListArray:
    missing = np.array([row is None for row in rows], bool)
    flat = np.zeros((len(rows), dim), np.float16)
    for place in np.flatnonzero(~missing):
        flat[place] = rows[place]
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), type=pa.list_(pa.float16(), dim), mask=mask)


def read_part(place: Place, dim: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part, all columns or some; UserError where it is missing or damaged."""

    def read(parquet: pq.ParquetFile) -> pa.Table:
        if not parquet.schema_arrow.equals(embedding_schema(dim)):
            raise pa.ArrowInvalid("other columns than those of a table of embeddings")
        # Each of Arrow's threads would keep memory of its own.
        return parquet.read(columns=list(columns) if columns is not None else None, use_threads=False)

    with storage_errors(place.uri):
        try:
            return read_parquet(place, read)
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise UserError(f"{place} is missing or damaged", got=str(error), remedy=INDEX_AGAIN) from error
