"""The form of an index: its columns, and what it may say of shards, checked before anybody follows it: plain names,
ranges inside, rows that can be.
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import FileFormError, is_plain_name, parse_json

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
        ("video", pa.string()),  # path in the folder of videos, where no table names it
    ]
)
ADDED = ("source_sha256", "video")  # columns that earlier versions have not written: null there
# A row has a hash of its own, which no compression makes smaller than a byte.
_ROWS_WITHOUT_BYTES = 1 << 20
_LARGEST_SHARD = 1 << 40
_LARGEST_SIZES = {"num_bytes": _LARGEST_SHARD, "num_clips": (1 << 40) - 1}
_LARGEST = {"offset": _LARGEST_SHARD, "num_bytes": 4 << 30}  # a reader takes memory for a clip before it reads it


def _widened(kind: pa.DataType) -> pa.DataType:
    """Return the type with 64-bit offsets in place of 32-bit ones."""
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_list(kind):
        return pa.large_list(_widened(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _widened(field.type)) for field in kind])
    return kind


def with_added(table: pa.Table) -> pa.Table:
    """Return a table of INDEX_SCHEMA or of an earlier version's with the columns that were added since."""
    for name in ADDED:
        if name not in table.column_names:
            table = table.append_column(INDEX_SCHEMA.field(name), pa.nulls(len(table), INDEX_SCHEMA.field(name).type))
    return table


# Arrow's `string` ends at 2 GiB per column: `take` on 33.5 million hashes of 64 bytes fails.
MEMORY_SCHEMA = pa.schema([(field.name, _widened(field.type)) for field in INDEX_SCHEMA])


def sizes_of(metadata: bytes, source: object = "the index of clips") -> dict[str, dict[str, int]]:
    """Return {"num_bytes", "num_clips"} by the name of the shard; UserError for metadata of another form.

    Nothing is made of the shards but this: there may be hundreds of thousands.
    """
    sizes = parse_json(metadata, source)
    if not isinstance(sizes, dict):
        raise FileFormError(f"{source} is not of its form", got=f"{sizes!r:.200}", wanted="the sizes of its shards")
    for name, size in sizes.items():
        if not is_plain_name(name):
            raise FileFormError(f"{source} is not of its form", got=f"{name[:60]!r}, which is no plain name of a file")
        if not isinstance(size, dict) or not all(_is_size(size.get(key), most) for key, most in _LARGEST_SIZES.items()):
            wanted = ", ".join(f"{key} from 0 to {most}" for key, most in _LARGEST_SIZES.items())
            raise FileFormError(f"{source} is not of its form", got=f"{name} = {size!r:.200}", wanted=wanted)
    return sizes


def _is_size(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def check_rows(place: Place, parquet: pq.ParquetFile, num_bytes: int) -> None:
    """Raise UserError for more rows than a file of `num_bytes` can hold, before memory is taken for them."""
    num_rows = parquet.metadata.num_rows
    if num_rows > _ROWS_WITHOUT_BYTES + num_bytes:
        raise UserError("an index of more rows than it can hold", got=f"{place}, {num_rows} rows in {num_bytes} bytes")


def check_ranges(place: Place, table: pa.Table, sizes: dict[str, dict[str, int]]) -> None:
    """Raise UserError where a row leads out of what shards can be."""
    if "shard" in table.column_names:
        names = pc.unique(table["shard"]).to_pylist()
        strange = [name for name in names if name is None or not is_plain_name(name) or (sizes and name not in sizes)]
        if strange:
            got = f"{place}: {str(strange[0])[:200]!r}"
            raise UserError("the index names shards that it does not list", got=got, wanted="plain names of its list")
    for name in sorted(set(_LARGEST) & set(table.column_names)):
        ends = pc.min_max(table[name]).as_py()
        if ends["min"] is not None and (ends["min"] < 0 or ends["max"] > _LARGEST[name]):
            got = f"{place}: {name} from {ends['min']} to {ends['max']}"
            raise UserError("the index leads out of its shards", got=got, wanted=f"0 to {_LARGEST[name]}")
