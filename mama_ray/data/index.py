"""The index beside the shards: `index.parquet`, one row per clip, sorted by (shard, offset).

It says where a clip's video bytes lie and what they hash to, so readers fetch byte ranges and never parse a tar.
Paths are inside a `pyarrow.fs.FileSystem`; `directory` is the folder that holds the index and its shards.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mama_ray.data.clip import SPLITS, Clip
from mama_ray.data.index_file import RowOrder, in_groups, open_index
from mama_ray.data.index_form import CAPTIONS_TYPE as CAPTIONS_TYPE
from mama_ray.data.index_form import (
    INDEX_NAME,
    INDEX_SCHEMA,
    INDEX_VERSION,
    MEMORY_SCHEMA,
    SHARDS_KEY,
    VERSION_KEY,
    sizes_of,
    with_added,
)
from mama_ray.data.shard import MemberLocation, ShardError
from mama_ray.errors import unknown_name
from mama_ray.storage.places import Place

# Whoever reads some rows reads their row group, 4 MB of a captioning job's columns, and where all groups lie, which is
# 107 MB in memory for 100 million clips. A group has fewer rows where they are large.
_GROUP_ROWS = 1 << 15


def index_row(clip: Clip, location: MemberLocation, shard: str, video: dict[str, Any]) -> dict[str, Any]:
    """Build the row of a clip; `video` holds duration_s, width, height, fps and codec of the stored bytes, perhaps the
    path of its video."""
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
        "video": video.get("video"),
    }


def write_index(folder: Place, tables: Iterable[pa.Table], shards: dict[str, dict[str, int]]) -> None:
    """Write the index from tables of INDEX_SCHEMA, few in memory at a time, in the order of (shard, offset).

    `shards` maps each shard's name to {"num_bytes", "num_clips"}. Small tables share a row group. The index appears
    under its name when it is whole. Raises ValueError for tables in another order, which no reader would take.
    """
    metadata = {SHARDS_KEY: json.dumps(shards, sort_keys=True).encode(), VERSION_KEY: INDEX_VERSION.encode()}
    with (
        (folder / INDEX_NAME).open_whole() as stream,
        # Nobody looks for a value by the smallest of a group; a schema in it would hold the metadata once more.
        pq.ParquetWriter(
            stream, INDEX_SCHEMA, compression="zstd", write_statistics=False, store_schema=False
        ) as writer,
    ):
        plain = (with_added(table).cast(INDEX_SCHEMA).replace_schema_metadata(None) for table in tables)
        order = RowOrder()
        for table in in_groups(plain, INDEX_SCHEMA, _GROUP_ROWS):
            if not order.goes_on(table):
                raise ValueError(f"the rows for {folder / INDEX_NAME} are not in the order of shard and offset")
            writer.write_table(table, row_group_size=max(1, len(table)))
        writer.add_key_value_metadata(metadata)


def read_index(folder: Place, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the index, all columns or some, sorted by (shard, offset), with the shards' sizes in its schema's metadata.

    The columns have the types of MEMORY_SCHEMA, whose strings and lists have no limit, and one chunk each; memory is
    that of the table and of its largest column. Who need not hold all rows uses `data.index_file`. Raises UserError
    when the index is missing, damaged, of another schema or version, or not sorted, and when the storage keeps failing.
    """
    index = open_index(folder)
    names = list(columns) if columns is not None else INDEX_SCHEMA.names
    schema = pa.schema([MEMORY_SCHEMA.field(name) for name in names], index.metadata())
    rest = pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in index.tables(names))])
    columns_of = []
    while rest.num_columns:
        columns_of.append(rest.column(0).combine_chunks())
        rest = rest.remove_column(0)  # frees its chunks
    return pa.table(columns_of, schema=schema)


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
    return table.filter(pa.array(has_caption(table.column("captions").combine_chunks(), probabilities)))


def has_caption(captions: pa.ListArray | pa.LargeListArray, probabilities: Mapping[str, float] | None) -> np.ndarray:
    """Return bool (clips,): which clips have a caption of a source that is drawn from, or of any where that is None."""
    flat, parents = pc.list_flatten(captions), pc.list_parent_indices(captions).to_numpy()
    if probabilities is not None:
        wanted = pa.array([source for source, share in probabilities.items() if share > 0], pa.string())
        parents = parents[pc.is_in(pc.struct_field(flat, "source"), value_set=wanted).to_numpy(zero_copy_only=False)]
    found = np.zeros(len(captions), bool)
    found[parents] = True
    return found


def hash_ids(clip_ids: Iterable[str]) -> str:
    """sha256 of the sorted ids, joined by newlines: names a set of clips in a protocol."""
    return hashlib.sha256("\n".join(sorted(clip_ids)).encode()).hexdigest()


def check_clip_bytes(data: bytes, shard: str, offset: int, num_bytes: int, sha256: str | None) -> None:
    """Raise ShardError unless `data` is what the index promised."""
    if len(data) != num_bytes:
        raise ShardError(f"shard {shard} is truncated: got {len(data)} of {num_bytes} bytes at {offset}")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ShardError(f"shard {shard} has other bytes at {offset} than the index says (sha256 differs)")
