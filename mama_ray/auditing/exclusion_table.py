"""A long list of exclusions, asked for some clips at a time: some 60 bytes for each, not an object."""

import hashlib
from collections.abc import Iterable
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.auditing.exclusions import Exclusion, ExclusionCounts, iterate_exclusions, mark_excluded
from mama_ray.data.unique_ids import hashes_of_ids
from mama_ray.storage.places import Place

_AT_ONCE = 1 << 16
_NONE = np.empty(0, np.uint64)
_SCHEMA = pa.schema([("clip_id", pa.large_string()), ("caption_id", pa.large_string())])


class ExclusionTable:
    """What `exclusions.py` does with a list of exclusions, whose reasons are forgotten."""

    def __init__(self, exclusions: Iterable[Exclusion]) -> None:
        parts = [_SCHEMA.empty_table()]
        rest = iter(exclusions)
        while some := list(islice(rest, _AT_ONCE)):
            columns = [[one.clip_id for one in some], [one.caption_id for one in some]]
            parts.append(pa.table(columns, schema=_SCHEMA))
        self._table = pa.concat_tables(parts).combine_chunks()
        hashes = np.concatenate(
            [hashes_of_ids(part["clip_id"].to_pylist()) for part in self._table.to_batches(_AT_ONCE)] or [_NONE]
        )
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    @classmethod
    def read(cls, place: Place) -> "ExclusionTable":
        """Read the file; see `read_exclusions`."""
        return cls(iterate_exclusions(place))

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> Exclusion:
        return Exclusion(**self._table.slice(number, 1).to_pylist()[0])

    def mark(self, clips: pa.Table) -> tuple[pa.Table, np.ndarray, ExclusionCounts]:
        """Do what `mark_excluded` does with some clips; those of the list are found by a hash of their ids."""
        ids = hashes_of_ids(clips["clip_id"].to_pylist())
        starts, stops = (np.searchsorted(self._hashes, ids, side) for side in ("left", "right"))
        is_listed = stops > starts
        own = [self._order[start:stop] for start, stop in zip(starts[is_listed], stops[is_listed], strict=True)]
        rows = self._table.take(pa.array(np.sort(np.concatenate([np.empty(0, np.int64), *own]))))
        return mark_excluded(clips, [Exclusion(**row) for row in rows.to_pylist()])

    def sha256(self) -> str:
        """Return what `hash_exclusions` does."""
        zero, end, none = (pa.scalar(text, pa.large_string()) for text in ("\0", "\n", ""))
        lines = pc.binary_join_element_wise(self._table["clip_id"], self._table["caption_id"], zero)
        lines = pc.unique(pc.binary_join_element_wise(lines, end, none))
        lines = lines.take(pc.array_sort_indices(lines))
        whole = pc.binary_join(pa.LargeListArray.from_arrays(pa.array([0, len(lines)], pa.int64()), lines), none)
        return hashlib.sha256(whole[0].as_buffer()).hexdigest()
