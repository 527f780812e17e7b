"""The files of a table of embeddings: what it is of, which parts it has, and the rows of a part.

`config.json` says of which model and shards the features are; `embeddings.json`, written last, names the parts with
their counts. A folder without it is no table.
"""

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
from mama_ray.storage.small_files import check_form, require_plain_name

TABLE_VERSION = 1
IDENTITY_NAME = "config.json"
SUMMARY_NAME = "embeddings.json"
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


class _Summary(BaseModel):
    model_config = ConfigDict(extra="allow")

    version: int = Field(ge=1, le=TABLE_VERSION)
    parts: dict[Annotated[str, AfterValidator(require_plain_name)], PartCounts]


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


def read_summary(folder: Place) -> dict[str, PartCounts]:
    """Return the parts of a finished table by name, with their counts; UserError where it is not finished."""
    with storage_errors(folder.uri):
        content = (folder / SUMMARY_NAME).read_json()
    if content is None:
        raise UserError(f"the index {folder.uri} is not finished", wanted=SUMMARY_NAME, remedy=INDEX_AGAIN)
    return check_form(_Summary, content, folder / SUMMARY_NAME).parts


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
