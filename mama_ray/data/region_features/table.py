"""The table of features that jobs/features.py writes: a folder of Parquet files with a summary, one row per clip.

`features-NNNNNNNN.parquet` has the clips of one chunk, a row group each, so that one clip is read alone;
`index.parquet` says of every clip its row, its video's hash and why it has no features, where it has none;
`features.json`, written last, makes the folder a table.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from mama_ray.data.region_features.boxes import NUM_BOX_NUMBERS, join_regions
from mama_ray.errors import UserError
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.small_files import check_form

TABLE_VERSION = 1
SUMMARY_NAME = "features.json"
INDEX_NAME = "index.parquet"
CHUNK_CLIPS = 16  # 50 MB with 10 regions of 2048 channels
INDEX_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("clip_id", pa.string()),
        ("video_sha256", pa.string()),
        ("error", pa.string()),
    ]
)


class FeatureShape(BaseModel):
    """Sizes of what the table has of a clip."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_clips: int = Field(gt=0, le=1 << 10)
    frames_per_clip: int = Field(gt=0, le=1 << 10)
    num_regions: int = Field(gt=0, le=1 << 10)
    frame_dim: int = Field(gt=0, le=1 << 16)
    region_dim: int = Field(gt=0, le=1 << 16)

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Shape of each column of features."""
        clips = (self.num_clips, self.frames_per_clip)
        return {
            "frames": (*clips, self.frame_dim),
            "regions": (*clips, self.num_regions, self.region_dim),
            "boxes": (*clips, self.num_regions, 4),
        }

    def packed_shape(self, num_regions: int) -> tuple[int, int, int]:
        """Return the shape of a clip's packed features with so many regions."""
        channels = self.frame_dim + num_regions * (self.region_dim + NUM_BOX_NUMBERS)
        return self.num_clips, self.frames_per_clip, channels

    @property
    def schema(self) -> pa.Schema:
        """Columns of a file; features are flat, in C order, null beside an error."""
        arrays = {name: pa.list_(pa.float32(), int(np.prod(shape))) for name, shape in self.arrays.items()}
        return pa.schema([*INDEX_SCHEMA, ("width", pa.int32()), ("height", pa.int32()), *arrays.items()])


class NoFeatures(UserError):
    """A clip that could not be looked at, with the reason."""


class _Summary(BaseModel):
    model_config = ConfigDict(extra="allow")

    version: int = Field(ge=TABLE_VERSION, le=TABLE_VERSION)
    shape: FeatureShape
    num_rows: int = Field(gt=0)


def chunk_name(chunk: int) -> str:
    """Return the name of the file with rows [chunk * CHUNK_CLIPS, (chunk + 1) * CHUNK_CLIPS)."""
    return f"features-{chunk:08d}.parquet"


def write_chunk(folder: Place, chunk: int, rows: Sequence[dict[str, Any]], shape: FeatureShape) -> None:
    """Write the rows of a chunk whole; each has the columns of `shape.schema`, features as arrays or None."""
    schema = shape.schema
    columns = {field.name: pa.array([_flat(row[field.name]) for row in rows], type=field.type) for field in schema}
    table = pa.table(columns, schema=schema)
    (folder / chunk_name(chunk)).write_whole(partial(pq.write_table, table, row_group_size=1, compression="zstd"))


def _flat(value: Any) -> Any:
    return value.ravel().astype(np.float32) if isinstance(value, np.ndarray) else value


def read_chunk_index(folder: Place, chunk: int, shape: FeatureShape) -> pa.Table | None:
    """Return a file's rows without features; None when it is not what its name says, as after a power failure."""

    def read(parquet: pq.ParquetFile) -> pa.Table | None:
        if not parquet.schema_arrow.equals(shape.schema):
            return None
        return parquet.read(columns=INDEX_SCHEMA.names)

    try:
        return read_parquet(folder / chunk_name(chunk), read)
    except pa.ArrowInvalid:
        return None


class FeatureTable:
    """A finished table, read clip by clip."""

    def __init__(self, folder: Place) -> None:
        """Read summary and index. UserError where the folder holds no finished table, or a damaged one."""
        self._folder = folder
        with storage_errors(folder.uri):
            content = (folder / SUMMARY_NAME).read_json()
            if content is None:
                raise UserError(
                    f"{folder.uri} is no table of features", wanted=SUMMARY_NAME, remedy="let jobs/features.py finish"
                )
            summary = check_form(_Summary, content, folder / SUMMARY_NAME)
            self.shape = summary.shape
            index = self._read(INDEX_NAME, lambda parquet: parquet.read())
        if not index.schema.equals(INDEX_SCHEMA) or len(index) != summary.num_rows:
            raise UserError(f"{folder / INDEX_NAME} is damaged", got=f"{len(index)} rows", wanted=summary.num_rows)
        self._rows = {clip_id: row for row, clip_id in enumerate(index["clip_id"].to_pylist())}
        self._index = index

    def read(self, clip_id: str, video_sha256: str, *, num_regions: int | None = None) -> dict[str, np.ndarray]:
        """Return what VGT takes of a clip, float32: frames (clips, frames, d) and regions (clips, frames, R, e + 5).

        `num_regions` takes the first, null all. UserError where the table has no such clip, another video's features,
        none for a reason, or fewer regions.
        """
        row = self._row_of(clip_id, video_sha256)
        if num_regions is not None and num_regions < 1:
            raise UserError("num_regions", got=num_regions, wanted="at least 1")
        if num_regions is not None and num_regions > self.shape.num_regions:
            raise UserError(
                f"{self._folder.uri} has fewer regions than the model",
                got=self.shape.num_regions,
                wanted=f"at least {num_regions}",
                remedy="extract them again with --num_regions, or build the model with theirs",
            )
        chunk, group = divmod(row, CHUNK_CLIPS)
        with storage_errors(self._folder.uri):
            found = self._read(chunk_name(chunk), lambda parquet: parquet.read_row_group(group)).combine_chunks()
        known = self._described(found, chunk, clip_id, video_sha256)
        arrays = {
            name: found[name].chunk(0).flatten().to_numpy(zero_copy_only=False).reshape(shape)
            for name, shape in self.shape.arrays.items()
        }
        odd = [name for name, values in arrays.items() if not np.isfinite(values).all()]
        if odd:
            raise UserError(
                f"the {odd[0]} of clip {clip_id} hold values that are no numbers", wanted="finite numbers",
                remedy="extract the features of this clip again",
            )  # fmt: skip
        regions, boxes = (arrays[name][:, :, :num_regions] for name in ("regions", "boxes"))
        joined = join_regions(regions, boxes, width=known["width"], height=known["height"])
        return {"frames": arrays["frames"], "regions": joined}

    def _described(self, found: pa.Table, chunk: int, clip_id: str, video_sha256: str) -> dict[str, Any]:
        """Return what a row of a file says beside its features; UserError where it is not the clip's, whole."""
        name = self._folder / chunk_name(chunk)
        if not found.schema.equals(self.shape.schema) or len(found) != 1:
            got = f"{len(found)} rows of {len(found.schema)} columns"
            raise UserError(
                f"{name} is damaged", got=got, wanted=f"a row for each clip, of the shape in {SUMMARY_NAME}"
            )
        known = found.select(["clip_id", "video_sha256", "width", "height"]).to_pylist()[0]
        if (known["clip_id"], known["video_sha256"]) != (clip_id, video_sha256):
            raise UserError(f"{name} is damaged", got=known["clip_id"], wanted=clip_id)
        is_sized = all(known[side] is not None and known[side] > 0 for side in ("width", "height"))
        if not is_sized or any(found[name].null_count for name in self.shape.arrays):
            raise UserError(f"{name} is damaged", got=f"nothing of clip {clip_id}", wanted="its features and size")
        return known

    def _row_of(self, clip_id: str, video_sha256: str) -> int:
        row = self._rows.get(clip_id)
        if row is None:
            raise UserError(
                f"{self._folder.uri} has no features of clip {clip_id}", got=f"{len(self._rows)} other clips"
            )
        known = self._index.slice(row, 1).to_pylist()[0]
        if known["video_sha256"] != video_sha256:
            raise UserError(
                f"the features of clip {clip_id} are of another video",
                got=known["video_sha256"],
                wanted=video_sha256,
                remedy="extract the features of these shards",
            )
        if known["error"] is not None:
            raise NoFeatures(f"clip {clip_id} has no features", got=known["error"])
        return row

    def _read(self, name: str, read: Any) -> Any:
        try:
            return read_parquet(self._folder / name, read)
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise UserError(
                f"{self._folder / name} is missing or damaged", got=str(error), remedy="start jobs/features.py again"
            ) from error
