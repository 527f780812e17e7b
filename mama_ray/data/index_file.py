"""An index that is read a few row groups at a time: memory does not grow with its rows.

What is checked of an index is checked here, of its form when it is opened and of its rows as they are read.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mama_ray.data.index_form import (
    INDEX_NAME,
    INDEX_SCHEMA,
    INDEX_VERSION,
    MEMORY_SCHEMA,
    SHARDS_KEY,
    VERSION_KEY,
    check_ranges,
    check_rows,
    sizes_of,
    with_added,
)
from mama_ray.errors import UserError
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors

_MAKE_ONE = "make one with jobs/prepare.py"
# A list of structs that is read as one must fit 32-bit offsets: 32 kB of captions per clip.
_ROWS_PER_READ = 1 << 16
_GROUP_ROWS = 1 << 13
_GROUP_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class IndexFile:
    """An index whose form is as it should be; small but for where its row groups end, and picklable.

    Attributes:
        place: of the file.
        num_bytes: of the file. Another size later means that it was written anew.
        stops: int64 (row groups,), the row behind the last one of each.
    """

    place: Place
    num_bytes: int
    stops: np.ndarray

    def __len__(self) -> int:
        return int(self.stops[-1]) if len(self.stops) else 0

    def metadata(self) -> dict[bytes, bytes]:
        """Return version and sizes of shards as they stand in the file."""
        found = _footer(self.place, self.num_bytes).metadata
        return {key: found[key] for key in (SHARDS_KEY, VERSION_KEY)}

    def shard_sizes(self) -> dict[str, dict[str, int]]:
        """Return the {"num_bytes", "num_clips"} of every shard, of all splits: some 400 bytes of memory for each."""
        return sizes_of(self.metadata()[SHARDS_KEY])

    def read(self, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Read whole row groups, as columns of the types of MEMORY_SCHEMA. Checks nothing of their rows."""
        footer = _footer(self.place, self.num_bytes)

        def read(parquet: pq.ParquetFile) -> pa.Table:
            there = set(parquet.schema_arrow.names)  # an index of an earlier version may lack a column
            return parquet.read_row_groups(list(groups), columns=[name for name in columns if name in there])

        with _told(self.place):
            table = read_parquet(self.place, read, footer=(footer, self.num_bytes))
        nulls = {name: pa.nulls(len(table), MEMORY_SCHEMA.field(name).type) for name in columns}
        found = {name: table[name] if name in table.column_names else nulls[name] for name in columns}
        return pa.table(found).cast(pa.schema([MEMORY_SCHEMA.field(name) for name in columns]))

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield all rows in order, some 65,536 at a time.

        Raises UserError as soon as a row leads out of its shard or is not in the order of (shard, offset).
        """
        sizes = self.shard_sizes() if "shard" in columns else {}
        order = RowOrder()
        for groups in self._runs():
            table = self.read(groups, columns)
            if {"shard", "offset"} <= set(columns) and not order.goes_on(table):
                got = f"{self.place}"
                raise UserError("the index of clips is not sorted by shard and offset", got=got, remedy=_MAKE_ONE)
            check_ranges(self.place, table, sizes)
            yield table

    def _runs(self) -> Iterator[list[int]]:
        run: list[int] = []
        start = 0
        for group, stop in enumerate(self.stops.tolist()):
            if run and stop - start > _ROWS_PER_READ:
                yield run
                run, start = [], int(self.stops[group - 1])
            run.append(group)
        if run:
            yield run


def open_index(folder: Place) -> IndexFile:
    """Open the index of a folder; UserError where it is missing, damaged, of another schema or version."""
    place = folder / INDEX_NAME

    def look(parquet: pq.ParquetFile) -> tuple[pa.Schema, pq.FileMetaData]:
        check_rows(place, parquet, num_bytes)
        return parquet.schema_arrow, parquet.metadata

    with _told(place):
        num_bytes = place.info().size or 0
        schema, footer = read_parquet(place, look)
    _check_schema(place, schema, footer.metadata or {})
    counts = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    return IndexFile(place, num_bytes, np.cumsum(counts, dtype=np.int64))


def write_rows(place: Place, tables: Iterable[pa.Table], columns: Sequence[str], shards: dict) -> IndexFile:
    """Write rows with some columns of an index as a file of their own, to be read as one by who is handed it.

    tables: in the order of (shard, offset), few in memory at a time. Of larger rows than an index has, a window of
    shards is to fit into what a reader keeps: smaller row groups. The file has its name from the start, which saves
    S3 a copy by parts.
    """
    schema = pa.schema([INDEX_SCHEMA.field(name) for name in columns])
    metadata = {SHARDS_KEY: json.dumps(shards, sort_keys=True).encode(), VERSION_KEY: INDEX_VERSION.encode()}
    place.parent.make_folder()
    counts: list[int] = []
    with (
        place.filesystem.open_output_stream(place.path) as stream,
        pq.ParquetWriter(stream, schema, compression="zstd", write_statistics=False, store_schema=False) as writer,
    ):
        plain = (table.select(columns).cast(schema).replace_schema_metadata(None) for table in tables)
        for table in in_groups(plain, schema, _GROUP_ROWS):
            writer.write_table(table, row_group_size=len(table))
            counts.append(len(table))
        writer.add_key_value_metadata(metadata)
    return IndexFile(place, place.info().size or 0, np.cumsum(counts, dtype=np.int64))


def in_groups(tables: Iterable[pa.Table], schema: pa.Schema, max_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables of a schema in as few tables as may be row groups."""
    rest = schema.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        while len(rest) >= max_rows or rest.nbytes >= _GROUP_BYTES:
            count = max(1, min(max_rows, len(rest) * _GROUP_BYTES // max(1, rest.nbytes)))
            yield rest.slice(0, count)
            rest = rest.slice(count)
    if len(rest):
        yield rest


@lru_cache(maxsize=2)
def _footer(place: Place, num_bytes: int) -> pq.FileMetaData:
    """Return where the row groups of an index lie, kept by each process; `num_bytes` tells the file from a later one.

    Raises UserError where the file has another size by now.
    """

    def look(parquet: pq.ParquetFile) -> pq.FileMetaData:
        return parquet.metadata

    with _told(place):
        found = place.info().size
        if found != num_bytes:
            remedy = "start the job again: it goes on"
            raise UserError("the index of clips was changed while a job reads it", got=place, remedy=remedy)
        return read_parquet(place, look)


@contextmanager
def _told(place: Place) -> Iterator[None]:
    with storage_errors(f"{place}"):
        try:
            yield
        except FileNotFoundError as error:
            raise UserError("no index of clips", got=f"{place}", remedy=_MAKE_ONE) from error
        except pa.ArrowInvalid as error:
            detail = " ".join(str(error).split())
            raise UserError("the index of clips cannot be read", got=f"{place} ({detail})", remedy=_MAKE_ONE) from error


def _check_schema(place: Place, schema: pa.Schema, metadata: dict[bytes, bytes]) -> None:
    whole = with_added(schema.remove_metadata().empty_table()).schema
    if not whole.equals(INDEX_SCHEMA):
        missing = sorted(set(INDEX_SCHEMA.names) - set(whole.names))
        got = f"{place} without {', '.join(missing)}" if missing else f"{place} with other column types"
        raise UserError("not an index of clips", got=got, wanted=f"version {INDEX_VERSION}", remedy=_MAKE_ONE)
    version = metadata.get(VERSION_KEY, b"none").decode(errors="replace")
    if version != INDEX_VERSION or SHARDS_KEY not in metadata:
        raise UserError("index of clips of another version", got=version, wanted=INDEX_VERSION, remedy=_MAKE_ONE)
    sizes_of(metadata[SHARDS_KEY])


class RowOrder:
    """Tells whether tables that come one after the other are in the order of (shard, offset)."""

    def __init__(self) -> None:
        self._last: pa.Table | None = None

    def goes_on(self, table: pa.Table) -> bool:
        """Whether the rows are in order, and all of them behind those of the tables before."""
        keys = table.select(["shard", "offset"])
        before, self._last = self._last, keys.slice(len(keys) - 1) if len(keys) else self._last
        return _is_sorted(keys if before is None else pa.concat_tables([before, keys]))


def _is_sorted(table: pa.Table) -> bool:
    if len(table) < 2:
        return True
    shard, offset = table["shard"].combine_chunks(), table["offset"].combine_chunks()
    same = pc.equal(shard[:-1], shard[1:])
    ordered = pc.or_(pc.less(shard[:-1], shard[1:]), pc.and_(same, pc.less(offset[:-1], offset[1:])))
    return bool(pc.all(ordered).as_py())
