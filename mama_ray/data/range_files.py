"""Records of numbers that are sorted into ranges on this machine's disk: what is too much for memory is worked off a
range at a time.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

_HELD_BYTES = 8 << 20  # of records that are held before they are written


class RangeFiles:
    """Takes records in, each with the number of its range; `read` returns those of a range in the order they came.

    Args:
        folder: empty, and on a disk with room for all records.
        dtype: of a record, as numpy has it.
    """

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self._folder, self._dtype = folder, dtype
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_held = 0

    def add(self, numbers: np.ndarray, records: np.ndarray) -> None:
        """Take records in: numbers (records,) of their ranges, from 0."""
        self._held.append((np.asarray(numbers, np.int64), records))
        self._num_held += len(records)
        if self._num_held * self._dtype.itemsize >= _HELD_BYTES:
            self._write()

    def read(self, number: int) -> np.ndarray:
        """Return the records of a range; none where nothing came."""
        self._write()
        path = self._path(number)
        return np.fromfile(path, self._dtype) if path.exists() else np.empty(0, self._dtype)

    def _write(self) -> None:
        if not self._held:
            return
        numbers = np.concatenate([numbers for numbers, _ in self._held])
        records = np.concatenate([records for _, records in self._held])
        self._held, self._num_held = [], 0
        order = np.argsort(numbers, kind="stable")
        numbers, records = numbers[order], records[order]
        present, starts = np.unique(numbers, return_index=True)
        for number, start, stop in zip(present, starts, [*starts[1:], len(numbers)], strict=False):
            with self._path(int(number)).open("ab") as file:
                file.write(records[start:stop].tobytes())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}"


@contextmanager
def range_files(dtype: np.dtype) -> Iterator[RangeFiles]:
    """Yield what takes records in; its files go when the block ends."""
    with tempfile.TemporaryDirectory(prefix="mama_ray-ranges-") as folder:
        yield RangeFiles(Path(folder), np.dtype(dtype))


class RangeTables:
    """The same of rows of tables, which are compressed.

    Args:
        folder: empty, and on a disk with room for all rows.
        schema: of the tables.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema

    def add(self, numbers: np.ndarray, rows: pa.Table) -> None:
        """Write rows: numbers (rows,) of their ranges, from 0."""
        for number in np.unique(numbers).tolist():
            own = rows.filter(pa.array(numbers == number)).cast(self._schema)
            with (
                self._path(number).open("ab") as file,
                pa.ipc.new_stream(file, self._schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer,
            ):
                writer.write_table(own)

    def read(self, number: int) -> pa.Table:
        """Return the rows of a range in the order they came; none where nothing came."""
        found, path = [self._schema.empty_table()], self._path(number)
        if path.exists():
            with path.open("rb") as file:
                while file.tell() < path.stat().st_size:
                    found.append(pa.ipc.open_stream(file).read_all())
        return pa.concat_tables(found)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.arrows"
