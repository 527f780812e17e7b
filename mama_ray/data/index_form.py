"""What an index may say of shards, checked before anybody follows it: plain names, ranges inside, rows that can be."""

from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, Field

from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import check_form, is_plain_name, parse_json, require_plain_name

# A row has a hash of its own, which no compression makes smaller than a byte.
_ROWS_WITHOUT_BYTES = 1 << 20
_LARGEST_SHARD = 1 << 40
_LARGEST = {"offset": _LARGEST_SHARD, "num_bytes": 4 << 30}  # a reader takes memory for a clip before it reads it


class _Shard(BaseModel):
    num_bytes: int = Field(ge=0, le=_LARGEST_SHARD)
    num_clips: int = Field(ge=0, lt=1 << 40)


class _Shards(BaseModel):
    """The form of the metadata `mama_ray.shards`."""

    shards: dict[Annotated[str, AfterValidator(require_plain_name)], _Shard]


def sizes_of(metadata: bytes, source: object = "the index of clips") -> dict[str, dict[str, int]]:
    """Return {"num_bytes", "num_clips"} by the name of the shard; UserError for metadata of another form."""
    sizes = parse_json(metadata, source)
    check_form(_Shards, {"shards": sizes}, source)
    return sizes


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
