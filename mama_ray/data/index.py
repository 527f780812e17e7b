"""The index beside the shards: `index.parquet`, one row per clip, sorted by (shard, offset).

It says where a clip's video bytes lie and what they hash to, so readers fetch byte ranges and never parse a tar.
Paths are inside a `pyarrow.fs.FileSystem`; `directory` is the folder that holds the index and its shards.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mama_ray.data.clip import SPLITS, Clip
from mama_ray.data.index_form import check_ranges, check_rows, sizes_of
from mama_ray.data.shard import MemberLocation, ShardError
from mama_ray.data.tar_headers import TAR_BLOCK
from mama_ray.errors import UserError, unknown_name
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors

INDEX_NAME = "index.parquet"
INDEX_VERSION = "1"
SHARDS_KEY = b"mama_ray.shards"
VERSION_KEY = b"mama_ray.version"
CAPTIONS_TYPE = pa.list_(pa.struct([("text", pa.string()), ("source", pa.string())]))
INDEX_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("num_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("codec", pa.string()),
        ("extension", pa.string()),
        ("split", pa.string()),
        ("topic", pa.string()),
        ("captions", CAPTIONS_TYPE),
        ("truth", pa.string()),
        ("questions", pa.string()),
        ("source_sha256", pa.string()),
    ]
)
_ADDED = ("source_sha256",)  # columns that earlier versions have not written: null there
_MAKE_ONE = "make one with jobs/prepare.py"
# A list of structs that is read as one must fit 32-bit offsets: 16 kB of captions per clip.
_ROWS_PER_READ = 1 << 17
# Two requests to an object store for each shard, one after the other, of which Arrow's S3 client keeps 25 in flight.
_CHECK_THREADS = 24
_CHECKS_AT_ONCE = 4096  # bounds what waits in the pool, whatever the number of shards


def _widened(kind: pa.DataType) -> pa.DataType:
    """Return the type with 64-bit offsets in place of 32-bit ones."""
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_list(kind):
        return pa.large_list(_widened(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _widened(field.type)) for field in kind])
    return kind


# Arrow's `string` ends at 2 GiB per column: `take` on 33.5 million hashes of 64 bytes fails.
MEMORY_SCHEMA = pa.schema([(field.name, _widened(field.type)) for field in INDEX_SCHEMA])


def index_row(clip: Clip, location: MemberLocation, shard: str, video: dict[str, Any]) -> dict[str, Any]:
    """Build the row of a clip; `video` holds duration_s, width, height, fps and codec of the stored bytes."""
    return {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "shard": shard,
        "offset": location.offset,
        "num_bytes": location.num_bytes,
        "sha256": location.sha256,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        **{name: video[name] for name in ("duration_s", "width", "height", "fps", "codec")},
        "extension": location.extension,
        "split": clip.split,
        "topic": clip.topic,
        "captions": [{"text": caption.text, "source": caption.source} for caption in clip.captions],
        "truth": json.dumps(clip.truth, sort_keys=True) if clip.truth else None,
        "questions": json.dumps(list(clip.questions)) if clip.questions else None,
        "source_sha256": clip.source_sha256,
    }


def write_index(folder: Place, tables: Iterable[pa.Table], shards: dict[str, dict[str, int]]) -> None:
    """Write the index from tables of INDEX_SCHEMA, one in memory at a time, in the order of (shard, offset).

    `shards` maps each shard's name to {"num_bytes", "num_clips"}. The index appears under its name when it is whole.
    """
    metadata = {SHARDS_KEY: json.dumps(shards, sort_keys=True).encode(), VERSION_KEY: INDEX_VERSION.encode()}
    schema = INDEX_SCHEMA.with_metadata(metadata)
    with (
        (folder / INDEX_NAME).open_whole() as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        for table in tables:
            writer.write_table(_with_added(table).cast(INDEX_SCHEMA).replace_schema_metadata(metadata))


def read_index(folder: Place, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the index, all columns or some, sorted by (shard, offset), with the shards' sizes in its schema's metadata.

    The columns have the types of MEMORY_SCHEMA, whose strings and lists have no limit, and one chunk each. Raises
    UserError when the index is missing, damaged, of another schema or version, or not sorted, and when the
    storage keeps failing.
    """
    place = folder / INDEX_NAME
    names = list(columns) if columns is not None else INDEX_SCHEMA.names

    def read(parquet: pq.ParquetFile) -> pa.Table:
        _check_schema(place, parquet.schema_arrow)
        check_rows(place, parquet, place.info().size or 0)
        return _read_wide(parquet, names)

    with storage_errors(f"{place}"):
        try:
            table = read_parquet(place, read)
        except FileNotFoundError as error:
            raise UserError("no index of clips", got=f"{place}", remedy=_MAKE_ONE) from error
        except pa.ArrowInvalid as error:
            detail = " ".join(str(error).split())
            raise UserError("the index of clips cannot be read", got=f"{place} ({detail})", remedy=_MAKE_ONE) from error
    if {"shard", "offset"} <= set(table.column_names) and not _is_sorted(table):
        raise UserError("the index of clips is not sorted by shard and offset", got=f"{place}", remedy=_MAKE_ONE)
    check_ranges(place, table, shard_sizes(table))
    return table


def _check_schema(place: Place, schema: pa.Schema) -> None:
    whole = _with_added(schema.remove_metadata().empty_table()).schema
    if not whole.equals(INDEX_SCHEMA):
        missing = sorted(set(INDEX_SCHEMA.names) - set(whole.names))
        got = f"{place} without {', '.join(missing)}" if missing else f"{place} with other column types"
        raise UserError("not an index of clips", got=got, wanted=f"version {INDEX_VERSION}", remedy=_MAKE_ONE)
    version = (schema.metadata or {}).get(VERSION_KEY, b"none").decode(errors="replace")
    if version != INDEX_VERSION or SHARDS_KEY not in schema.metadata:
        raise UserError("index of clips of another version", got=version, wanted=INDEX_VERSION, remedy=_MAKE_ONE)
    sizes_of(schema.metadata[SHARDS_KEY])


def _read_wide(parquet: pq.ParquetFile, names: list[str]) -> pa.Table:
    """Read columns as those of MEMORY_SCHEMA; memory is that of the table and of its largest column."""
    schema = pa.schema([MEMORY_SCHEMA.field(name) for name in names], parquet.schema_arrow.metadata)
    there = [name for name in names if name in parquet.schema_arrow.names]
    pieces = (
        _with_added(parquet.read_row_groups(groups, columns=there), names).select(names)
        for groups in _runs_of_groups(parquet)
    )
    rest = pa.concat_tables([schema.empty_table(), *(piece.cast(schema) for piece in pieces)])
    columns = []
    while rest.num_columns:
        columns.append(rest.column(0).combine_chunks())
        rest = rest.remove_column(0)  # frees its chunks
    return pa.table(columns, schema=schema)


def _with_added(table: pa.Table, names: Sequence[str] = _ADDED) -> pa.Table:
    """Return a table of an earlier version with the columns, among `names`, that were added since."""
    for name in _ADDED:
        if name in names and name not in table.column_names:
            table = table.append_column(INDEX_SCHEMA.field(name), pa.nulls(len(table), INDEX_SCHEMA.field(name).type))
    return table


def _runs_of_groups(parquet: pq.ParquetFile) -> Iterator[list[int]]:
    groups, num_rows = [], 0
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        if groups and num_rows + count > _ROWS_PER_READ:
            yield groups
            groups, num_rows = [], 0
        groups.append(group)
        num_rows += count
    if groups:
        yield groups


def _is_sorted(table: pa.Table) -> bool:
    if len(table) < 2:
        return True
    shard, offset = table["shard"].combine_chunks(), table["offset"].combine_chunks()
    same = pc.equal(shard[:-1], shard[1:])
    ordered = pc.or_(pc.less(shard[:-1], shard[1:]), pc.and_(same, pc.less(offset[:-1], offset[1:])))
    return bool(pc.all(ordered).as_py())


def shard_sizes(table: pa.Table) -> dict[str, dict[str, int]]:
    """The {"num_bytes", "num_clips"} of every shard, as the index recorded them (of all splits)."""
    return sizes_of(table.schema.metadata[SHARDS_KEY])


def clips_per_shard(table: pa.Table) -> list[int]:
    """Rows of each shard in the order of the (sorted, perhaps filtered) table: what an epoch plan wants."""
    runs = pc.run_end_encode(table["shard"].combine_chunks()) if len(table) else None
    ends = runs.run_ends.to_pylist() if runs is not None else []
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def select_split(table: pa.Table, split: str) -> pa.Table:
    """The rows of one split, in their order; none where the index has no such clips."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    return table.filter(pc.equal(table["split"], split))


def select_captioned(table: pa.Table, probabilities: Mapping[str, float] | None) -> pa.Table:
    """The clips with a caption of a source that is drawn from, or of any where that is None, in their order."""
    captions = table.column("captions").combine_chunks()
    flat, parents = pc.list_flatten(captions), pc.list_parent_indices(captions).to_numpy()
    if probabilities is not None:
        wanted = pa.array([source for source, share in probabilities.items() if share > 0], pa.string())
        parents = parents[pc.is_in(pc.struct_field(flat, "source"), value_set=wanted).to_numpy(zero_copy_only=False)]
    has_caption = np.zeros(len(table), bool)
    has_caption[parents] = True
    return table.filter(pa.array(has_caption))


def hash_ids(clip_ids: Iterable[str]) -> str:
    """sha256 of the sorted ids, joined by newlines: names a set of clips in a protocol."""
    return hashlib.sha256("\n".join(sorted(clip_ids)).encode()).hexdigest()


def check_clip_bytes(data: bytes, shard: str, offset: int, num_bytes: int, sha256: str | None) -> None:
    """Raise ShardError unless `data` is what the index promised."""
    if len(data) != num_bytes:
        raise ShardError(f"shard {shard} is truncated: got {len(data)} of {num_bytes} bytes at {offset}")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ShardError(f"shard {shard} has other bytes at {offset} than the index says (sha256 differs)")


def check_shards(folder: Place, table: pa.Table) -> None:
    """Check every shard of the index by its size and its end of archive; raise one UserError that names the bad ones.

    This costs a request for the size and one for 512 bytes per shard, many at a time; `scan_shard` is the check that
    reads everything. An error of the storage is that of the first shard that met one.
    """
    expected = shard_sizes(table)
    names = sorted(set(pc.unique(table["shard"]).to_pylist()) & set(expected)) or sorted(expected)

    def find_trouble(name: str) -> str | None:
        return _shard_trouble(folder / name, expected[name]["num_bytes"])

    bad = []
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        for start in range(0, len(names), _CHECKS_AT_ONCE):
            some = names[start : start + _CHECKS_AT_ONCE]
            reasons = pool.map(find_trouble, some)
            bad += [f"{name} ({reason})" for name, reason in zip(some, reasons, strict=True) if reason]
    if bad:
        shown = ", ".join(bad[:20]) + (f" and {len(bad) - 20} more" if len(bad) > 20 else "")
        raise UserError(
            "shards are not what the index says", got=shown, remedy="restore them or run jobs/prepare.py again"
        )


def _shard_trouble(place: Place, num_bytes: int) -> str | None:
    try:
        with place.open_file() as file:
            size = file.size()
            if size != num_bytes:
                return f"{'truncated' if size < num_bytes else 'grown'}: {size} of {num_bytes} bytes"
            return "no end of archive" if file.read_at(TAR_BLOCK, num_bytes - TAR_BLOCK).strip(b"\0") else None
    except OSError:
        if place.is_file():
            raise
        return "missing"
