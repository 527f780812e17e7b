"""Chosen rows of an index, read when they are wanted: what a job holds of its clips instead of their table.

A choice of rows is a bit for each row of the index, 12.5 MB for 100 million; a position is the number of a chosen row
among the chosen ones. `take`, `slice`, `select` and the length are those of a pyarrow table, so who takes rows of a
table takes them of these as well.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.clip import SPLITS
from mama_ray.data.index_file import IndexFile, open_index
from mama_ray.data.index_form import MEMORY_SCHEMA
from mama_ray.data.shard_check import check_sizes
from mama_ray.errors import unknown_name
from mama_ray.storage.places import Place

_BLOCK_BYTES = 512  # of the bits, between two of which the chosen rows are counted
# Row groups that a process keeps: those of a window of 16 shards in training, or with captions of tables of three.
_KEPT_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which rows are chosen.

    Attributes:
        bits: uint8, eight rows in each.
        before: int64, chosen rows before each block of 512 bytes, and of all.
    """

    bits: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> "Chosen":
        """Return the choice that a bool (rows,) makes."""
        return cls.of_bits(np.packbits(mask))

    @classmethod
    def of_bits(cls, bits: np.ndarray) -> "Chosen":
        """Return the choice of bits, uint8, eight rows in each; what is behind the last row is 0."""
        ones = np.add.reduceat(np.bitwise_count(bits), np.arange(0, len(bits), _BLOCK_BYTES), dtype=np.int64)
        return cls(bits, np.concatenate([[0], np.cumsum(ones if len(bits) else [], dtype=np.int64)]))

    def __len__(self) -> int:
        return int(self.before[-1])

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Return bool (stop - start,): which of these rows are chosen."""
        first = start // 8
        return np.unpackbits(self.bits[first : -(-stop // 8)])[start - first * 8 : stop - first * 8].astype(bool)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows, int64, of positions in any order."""
        blocks = np.searchsorted(self.before, positions, side="right") - 1
        found = np.empty(len(positions), np.int64)
        for block in np.unique(blocks).tolist():
            own = blocks == block
            first = block * _BLOCK_BYTES
            rows = np.flatnonzero(np.unpackbits(self.bits[first : first + _BLOCK_BYTES]))
            found[own] = first * 8 + rows[positions[own] - self.before[block]]
        return found


@dataclass(frozen=True, eq=False)
class IndexRows:
    """Rows of an index: all, or the chosen ones; picklable and small but for their bits."""

    index: IndexFile
    columns: tuple[str, ...]
    chosen: Chosen | None = None

    def __len__(self) -> int:
        return len(self.index) if self.chosen is None else len(self.chosen)

    @property
    def column_names(self) -> list[str]:
        """The columns that are read."""
        return list(self.columns)

    def select(self, columns: Sequence[str]) -> "IndexRows":
        """Return the same rows with fewer columns."""
        return replace(self, columns=tuple(columns))

    def rows_at(self, positions: np.ndarray) -> np.ndarray:
        """Return which rows of the index are at these positions, int64."""
        return positions if self.chosen is None else self.chosen.rows(positions)

    def take(self, positions: pa.Array | np.ndarray | Sequence[int]) -> pa.Table:
        """Return the rows at these positions, in their order; the row groups that they lie in are read for it.

        Raises IndexError for a position that there is not, and UserError where the storage fails.
        """
        places = np.asarray(positions, np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"rows {places.min()} to {places.max()} of {len(self)}")
        empty = _schema(self.columns).empty_table()
        return take_across(
            self.rows_at(places), self.index.stops, lambda group: _groups.get(self.index, group, self.columns), empty
        )

    def slice(self, start: int, length: int | None = None) -> pa.Table:
        """Return neighbouring rows: those of positions [start, start + length), as far as there are."""
        stop = len(self) if length is None else min(start + length, len(self))
        return self.take(np.arange(min(start, stop), stop))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows in their order, up to some 65,536 at a time, with some of the index's columns."""
        start = 0
        for table in self.index.tables(self.columns if columns is None else columns):
            stop = start + len(table)
            yield table if self.chosen is None else table.filter(pa.array(self.chosen.mask(start, stop)))
            start = stop

    def batches(self, columns: Sequence[str], num_rows: int) -> Iterator[pa.Table]:
        """Yield all rows in their order, `num_rows` at a time but for the last, in one chunk for each column."""
        yield from batches_of(self.tables(columns), num_rows)

    def shards(self) -> list[tuple[str, int]]:
        """Return the shards that have rows, in their order, and how many each has."""
        found: list[tuple[str, int]] = []
        for table in self.tables(["shard"]):
            own = pc.run_end_encode(table["shard"].combine_chunks())
            names, ends = own.values.to_pylist(), own.run_ends.to_pylist()
            for name, begin, end in zip(names, [0, *ends], ends, strict=False):
                if found and name == found[-1][0]:
                    found[-1] = name, found[-1][1] + end - begin
                else:
                    found.append((name, end - begin))
        return found

    def clips_per_shard(self) -> np.ndarray:
        """Return int64 (shards,): rows of each shard that has one, in their order; what an epoch plan wants."""
        return np.array([count for _, count in self.shards()], np.int64)

    def count(self, column: str) -> dict[str | None, int]:
        """Return how many rows there are of each value of a column."""
        counts: Counter = Counter()
        for table in self.tables([column]):
            counts.update({row["values"]: row["counts"] for row in pc.value_counts(table[column]).to_pylist()})
        return dict(counts)

    def read(self, count: int | None = None) -> pa.Table:
        """Return all rows, or the first ones, as a table, in one chunk for each column."""
        if count is not None:
            return self.slice(0, count)
        return pa.concat_tables([_schema(self.columns).empty_table(), *self.tables()]).combine_chunks()


def take_across(
    positions: np.ndarray, stops: np.ndarray, table_of: Callable[[int], pa.Table], empty: pa.Table
) -> pa.Table:
    """Return rows of tables that stand one behind the other, by their int64 positions among all rows, in that order.

    stops: where each table ends. `table_of` gives the one of a number, and is asked once for each that has a row.
    """
    numbers = np.searchsorted(stops, positions, side="right")
    pieces, order = [empty], [np.empty(0, np.int64)]
    for number in np.unique(numbers).tolist():
        own = np.flatnonzero(numbers == number)
        first = int(stops[number - 1]) if number else 0
        pieces.append(table_of(number).take(pa.array(positions[own] - first)))
        order.append(own)
    table = pa.concat_tables(pieces)
    return table.take(pa.array(np.argsort(np.concatenate(order), kind="stable"))).combine_chunks()


def batches_of(tables: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables in their order, `num_rows` at a time but for the last, in one chunk for each column."""
    rest: pa.Table | None = None
    for table in tables:
        table = table.replace_schema_metadata(None)
        rest = table if rest is None else pa.concat_tables([rest, table])
        while len(rest) >= num_rows:
            yield rest.slice(0, num_rows).combine_chunks()
            rest = rest.slice(num_rows)
    if rest is not None and len(rest):
        yield rest.combine_chunks()


def tables_of(rows: "pa.Table | IndexRows", columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield rows that are a table, or read, some at a time, with some of their columns."""
    if isinstance(rows, IndexRows):
        yield from rows.tables(columns)
    else:
        yield rows.select(columns)


def choose_rows(folder: Place, split: str | None, columns: Sequence[str]) -> tuple[IndexRows, int]:
    """Check index and shards of a folder; return the rows of a split, or all, and how many shards they are in.

    Memory is that of some row groups, a byte for each row and some hundred bytes for each shard. Raises UserError for
    whatever is wrong with the index and the shards, and OSError where the storage fails.
    """
    index, splits = check_index(folder)
    rows = IndexRows(index, tuple(columns))
    if split is not None:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        rows = replace(rows, chosen=Chosen.of(splits == SPLITS.index(split)))
    return rows, len(rows.clips_per_shard())


def rows_of_split(folder: Place, split: str | None, columns: Sequence[str]) -> IndexRows:
    """Return the rows of a split, or all, where nobody reads the shards; UserError for what is wrong with the index."""
    rows = IndexRows(open_index(folder), tuple(columns))
    if split is None:
        return rows
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    masks = [pc.fill_null(pc.equal(table["split"], split), False).to_numpy() for table in rows.tables(["split"])]
    return replace(rows, chosen=Chosen.of(np.concatenate([np.empty(0, bool), *masks])))


def check_index(folder: Place) -> tuple[IndexFile, np.ndarray]:
    """Check index and shards of a folder; return the index, and uint8 (rows,), the place of each row's split in SPLITS.

    Raises UserError and OSError as `choose_rows` does.
    """
    index = open_index(folder)
    splits = np.full(len(index), len(SPLITS), np.uint8)  # what is no split at all is of none
    names: set[str] = set()
    start = 0
    for table in index.tables(("shard", "offset", "num_bytes", "split")):
        names.update(pc.unique(table["shard"]).to_pylist())
        places = pc.index_in(table["split"], value_set=pa.array(SPLITS, pa.large_string()))
        splits[start : start + len(table)] = pc.fill_null(places, len(SPLITS)).to_numpy()
        start += len(table)
    check_sizes(folder, index.shard_sizes(), names)
    return index, splits


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([MEMORY_SCHEMA.field(name) for name in columns])


class TakesRows(Protocol):
    """Rows of an index by their numbers: a table, or what reads them."""

    def __len__(self) -> int: ...

    def take(self, positions: pa.Array, /) -> pa.Table:
        """Return rows in the order of their numbers."""

    def select(self, columns: Sequence[str], /) -> "TakesRows":
        """Return the same rows with fewer columns."""


class _KeptGroups:
    """The row groups that this process read last, up to so many bytes; threads may ask at once."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._kept: OrderedDict[tuple, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, index: IndexFile, group: int, columns: Sequence[str]) -> pa.Table:
        """Return a row group, read where it is not kept."""
        key = (index.place.uri, index.num_bytes, group, tuple(columns))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        table = index.read([group], columns)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = table
                self._num_bytes += table.nbytes
            while self._num_bytes > self._max_bytes and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= oldest.nbytes
        return table


_groups = _KeptGroups(_KEPT_BYTES)
