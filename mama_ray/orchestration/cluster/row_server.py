"""Rows of a large index for tasks and actors: one process reads them by row groups, the others ask it for theirs.

A table of a million rows is in the object store of every node that works with it. Of more rows a process keeps where
the row groups lie and those that were asked for last. Who takes rows need not know which it is.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.index_rows import IndexRows
from mama_ray.data.row_facts import RowFacts
from mama_ray.orchestration.cluster.results import user_errors

MAX_HELD_ROWS = 1 << 20  # 0.3 GB with human captions
_CALLS_AT_ONCE = 4  # a call waits for the storage
_ROWS_PER_CALL = 1 << 16


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=_CALLS_AT_ONCE)
class RowServer:
    """Takes rows of an index; one that dies starts anew and has lost nothing."""

    def __init__(self, rows: IndexRows) -> None:
        self._rows = rows

    def take(self, positions: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return rows; see `IndexRows.take`."""
        return self._rows.select(columns).take(positions)


@dataclass(frozen=True)
class ServedRows:
    """Rows that a server takes; small and picklable. Its methods are those of a table."""

    servers: tuple[ray.actor.ActorHandle, ...]
    source: ray.ObjectRef
    """What a server is made of, and made anew of when it has died: it must be there as long as these rows."""
    num_rows: int
    columns: tuple[str, ...]
    facts: ray.ObjectRef | None = None

    def __len__(self) -> int:
        return self.num_rows

    @property
    def server(self) -> ray.actor.ActorHandle:
        """The one that this process asks."""
        return self.servers[os.getpid() % len(self.servers)]

    @property
    def column_names(self) -> list[str]:
        """The columns of the rows."""
        return list(self.columns)

    def select(self, columns: Sequence[str]) -> "ServedRows":
        """Return the same rows with fewer columns."""
        return replace(self, columns=tuple(columns))

    def take(self, positions: pa.Array | np.ndarray | Sequence[int]) -> pa.Table:
        """Return rows in the order of their positions; UserError where the storage fails."""
        with user_errors():
            return ray.get(self.server.take.remote(np.asarray(positions, np.int64), self.columns))

    def slice(self, start: int, length: int | None = None) -> pa.Table:
        """Return neighbouring rows, as far as there are."""
        stop = self.num_rows if length is None else min(start + length, self.num_rows)
        return self.take(np.arange(min(start, stop), stop))

    def known(self) -> RowFacts:
        """Return what is known of all rows, of rows that were served with it; mapped from shared memory."""
        assert self.facts is not None
        return ray.get(self.facts)

    def read(self) -> pa.Table:
        """Return all rows as a table, for what cannot do with fewer."""
        starts = range(0, self.num_rows, _ROWS_PER_CALL)
        return pa.concat_tables([self.slice(start, _ROWS_PER_CALL) for start in starts]).combine_chunks()


def shared_rows(rows: ray.ObjectRef, num_rows: int, columns: Sequence[str]) -> ray.ObjectRef:
    """Return a reference to what tasks and actors take rows of: the table that `rows` refers to, where it is one, which
    it is up to MAX_HELD_ROWS rows, else rows that are served out of the IndexRows that it refers to.
    """
    return rows if num_rows <= MAX_HELD_ROWS else served_rows(rows, num_rows, columns)


def served_rows(
    rows: ray.ObjectRef,
    num_rows: int,
    columns: Sequence[str],
    *,
    num_servers: int = 1,
    facts: ray.ObjectRef | None = None,
) -> ray.ObjectRef:
    """Return a reference to ServedRows out of the IndexRows that `rows` refers to; the servers live as long as it.

    facts: refers to the RowFacts of these rows.
    A core of a server takes 128 neighbours in 1 ms, and 1,024 rows of a window of 16 shards in 0.06 s.
    """
    servers = tuple(RowServer.remote(rows) for _ in range(num_servers))
    return ray.put(ServedRows(servers, rows, num_rows, tuple(columns), facts))
