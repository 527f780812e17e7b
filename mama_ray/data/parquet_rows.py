"""The rows of a stranger's Parquet file, in bounded memory.

A text that many rows share stands once in such a file, and a few kilobytes compress gigabytes. So texts stay in their
dictionaries until a row is made, and as many rows are made at once as there is room for.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mama_ray.errors import UserError
from mama_ray.storage.places import Place

MAX_ROW_BYTES = 16 << 20
_MAX_BATCH_BYTES = 64 << 20
_MAX_COLUMN_BYTES = 1 << 30  # of a row group: a million captions have a fifth of it
_MAX_BATCH_ROWS = 1024


def read_rows(place: Place) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file; {"error": reason} for one that is too large or holds what Python cannot.

    Raises UserError for a row group that says of itself that it is larger than memory should be.
    """
    with place.open_file() as file, pq.ParquetFile(file) as plain:
        leaves = [plain.metadata.schema.column(number) for number in range(len(plain.metadata.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        parquet = pq.ParquetFile(file, metadata=plain.metadata, read_dictionary=texts)
        schema = plain.schema_arrow.remove_metadata()
        for number in range(parquet.num_row_groups):
            size = _rows_at_once(place, parquet.metadata.row_group(number))
            for batch in parquet.iter_batches(batch_size=size, row_groups=[number]):
                yield from _rows_of(batch, schema)


def _rows_at_once(place: Place, group: pq.RowGroupMetaData) -> int:
    sizes = [group.column(number).total_uncompressed_size for number in range(group.num_columns)]
    if max(sizes, default=0) > _MAX_COLUMN_BYTES:
        raise UserError(
            "annotations whose row groups are too large",
            got=f"{place}: {max(sizes)} bytes of one column",
            wanted=f"{_MAX_COLUMN_BYTES} bytes at most",
            remedy="write the table with smaller row groups (row_group_size of pyarrow and pandas)",
        )
    return max(1, min(_MAX_BATCH_ROWS, _MAX_BATCH_BYTES * group.num_rows // max(1, sum(sizes))))


def _rows_of(batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch, all at once where they surely have room, else one by one."""
    if _most_bytes(batch) <= _MAX_BATCH_BYTES:
        try:
            yield from batch.cast(schema).to_pylist()  # of plain texts, eight times as fast as of dictionaries
            return
        except (ValueError, OverflowError, NotImplementedError):
            pass  # one date beyond the calendar, or a text that is no UTF-8
    for number in range(batch.num_rows):
        yield _row_of(batch.slice(number, 1))


def _row_of(row: pa.RecordBatch) -> dict[str, Any]:
    num_bytes = sum(map(_bytes_of, row.columns))
    if num_bytes > MAX_ROW_BYTES:
        return {"error": f"row: got {num_bytes} bytes, wanted {MAX_ROW_BYTES} at most"}
    try:
        return row.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        return {"error": f"row: a value cannot be read ({' '.join(str(error).split())})"}


def _most_bytes(batch: pa.RecordBatch) -> int:
    """Return a bound of what the batch's texts take as Python's: each as long as the longest of its dictionary."""
    total = 0
    for array in _dictionaries(batch.columns):
        total += len(array) * (pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    return total + batch.nbytes


def _bytes_of(array: pa.Array) -> int:
    """Return what the texts of an array take, and its numbers."""
    total = 0
    for one in _dictionaries([array]):
        lengths = pc.binary_length(one.dictionary).take(one.indices)
        total += pc.sum(lengths).as_py() or 0
    return total + sum(one.nbytes for one in _flat([array]) if not pa.types.is_dictionary(one.type))


def _dictionaries(arrays: list[pa.Array]) -> list[pa.DictionaryArray]:
    return [array for array in _flat(arrays) if isinstance(array, pa.DictionaryArray)]


def _flat(arrays: list[pa.Array]) -> Iterator[pa.Array]:
    """Yield arrays and what they hold inside: the items of lists and maps, the fields of structs."""
    for array in arrays:
        if isinstance(array, pa.MapArray):
            first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
            yield from _flat([side.slice(first, last - first) for side in (array.keys, array.items)])
        elif isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
            yield from _flat([array.flatten()])
        elif isinstance(array, pa.StructArray):
            yield from _flat(array.flatten())
        else:
            yield array
