"""What a run keeps in memory of each of its clips, however many: a bit for each caption source, a byte for what is
recorded of its caption, and how many there are in each shard.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mama_ray.data.index import has_caption
from mama_ray.data.index_rows import Chosen, IndexRows
from mama_ray.data.sources import SourceRows

_ROWS_AT_ONCE = 1 << 16  # a multiple of eight
_CLEAN = "clean"  # what a caption is of which nothing is recorded
_KINDS = (_CLEAN, "incomplete", "wrong", "swapped", "misread")


@dataclass(frozen=True, eq=False)
class TruthKinds:
    """What is recorded of the captions of clips: clean, incomplete, wrong, swapped, misread.

    Attributes:
        names: of the kinds.
        codes: uint8 (clips,), the place of each clip's kind among them.
    """

    names: tuple[str, ...]
    codes: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the names of the kinds of some clips."""
        return np.array(self.names)[self.codes[rows]]


@dataclass(frozen=True, eq=False)
class RowFacts:
    """What is known of rows that are nowhere in memory.

    Attributes:
        clips_per_shard: int64 (shards,), in their order.
        sources: the rows that have a caption of a source.
        kinds: None where nothing is recorded.
    """

    clips_per_shard: np.ndarray
    sources: Mapping[str, SourceRows]
    kinds: TruthKinds | None


def kinds_of(table: pa.Table) -> TruthKinds | None:
    """Return the kinds of a table's clips, whose column truth says them; None where nothing is recorded of any."""
    kinds = _Kinds()
    kinds.add(table)
    return kinds.result()


def facts_of(rows: IndexRows, sources: Sequence[str] = ()) -> RowFacts:
    """Read rows once and return what is kept of them; `sources` are those whose rows are wanted."""
    bits: dict[str, list[np.ndarray]] = {source: [np.empty(0, np.uint8)] for source in sources}
    kinds = _Kinds()
    for table in rows.batches(["truth", *(["captions"] if sources else [])], _ROWS_AT_ONCE):
        kinds.add(table)
        for source, found in bits.items():
            found.append(np.packbits(has_caption(table["captions"].combine_chunks(), {source: 1.0})))
    counts = rows.clips_per_shard()
    stops = np.cumsum(counts)
    found = {}
    for source, parts in bits.items():
        chosen = Chosen.of_bits(np.concatenate(parts))
        own = [int(chosen.mask(stop - count, stop).sum()) for stop, count in zip(stops, counts, strict=True)]
        found[source] = SourceRows(chosen, own)
    return RowFacts(counts, found, kinds.result())


def with_caption(rows: IndexRows, probabilities: Mapping[str, float] | None) -> IndexRows:
    """Return the rows with a caption of a source that is drawn from, or of any where that is None."""
    mask, start = np.zeros(len(rows.index), bool), 0
    for table in rows.tables(["captions"]):
        places = rows.rows_at(np.arange(start, start + len(table)))
        mask[places] = has_caption(table["captions"].combine_chunks(), probabilities)
        start += len(table)
    return replace(rows, chosen=Chosen.of(mask))


def _kind_of(truth: str | None) -> str | None:
    """Return the kind that a truth records; None where it is a user's own record of something else."""
    record = json.loads(truth) if truth else None
    kind = record.get("kind") if isinstance(record, dict) else None
    return kind if kind in _KINDS else None


class _Kinds:
    """Takes tables of clips in and gives each kind a number as it comes."""

    def __init__(self) -> None:
        self._places, self._codes, self._is_recorded = {_CLEAN: 0}, [np.empty(0, np.uint8)], False

    def add(self, table: pa.Table) -> None:
        truths = table["truth"]
        codes = np.zeros(len(truths), np.uint8)
        if truths.null_count < len(truths):
            for row, truth in enumerate(truths.to_pylist()):
                if (kind := _kind_of(truth)) is not None:
                    self._is_recorded = True
                    codes[row] = self._places.setdefault(kind, len(self._places))
        self._codes.append(codes)

    def result(self) -> TruthKinds | None:
        return TruthKinds(tuple(self._places), np.concatenate(self._codes)) if self._is_recorded else None
